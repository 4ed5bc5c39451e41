"""Open vocabulary: things that are named in words, `segmenter.classes`, by text-prompted models of transformers.

`hf:MODEL` with a SAM 3 finds and outlines a word at once. `hf:DETECTOR+MASKS` finds boxes with an OWLv2 or a Grounding
DINO, and outlines them with a SAM 2. Only safetensors are read and no code of a model's repository is run. SAM 3 encodes
a photo once; a detector looks at it once for each word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from occpipe.core.errors import WeightsError, first_line
from occpipe.core.types import Image, Mask, Segment, Segmentation
from occpipe.models.segmenters import Segmenter

OVERLAP = 0.5
"""The least share of its pixels that a thing keeps when surer ones have taken theirs; below it is the same thing."""


class Thing(NamedTuple):
    """What was found for a word: its score, and its mask, H x W in {0, 1}."""

    score: float
    mask: Mask


class Finder(Protocol):
    """A model that finds what a word names."""

    def encode(self, images: Sequence[Image]) -> Any:
        """What all words have in common."""

    def find(self, encoded: Any, word: str, threshold: float) -> list[list[Thing]]:
        """The things of each image that a word names, with a score above the threshold."""


class PromptedSegmenter:
    """Finds `classes` in photos; stuff is that of `tagger`. A thing has a score of at least `threshold`.

    `sources` are folders or hub ids: a SAM 3, or a detector and a SAM 2. Raises WeightsError where transformers is missing,
    or a source is no such model.
    """

    def __init__(
        self,
        sources: Sequence[str],
        device: str = "cpu",
        *,
        classes: Sequence[str],
        tagger: Segmenter | None = None,
        threshold: float = 0.5,
    ) -> None:
        self.device = torch.device(device)
        try:
            self._finder: Finder
            if len(sources) == 1:
                self._finder = _Sam3(sources[0], self.device)
            else:
                detector, masks = sources
                self._finder = _Boxes(detector, masks, self.device)
        except ImportError as error:
            raise WeightsError(f"transformers is not installed: {first_line(error)}") from error
        except (OSError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise WeightsError(f"hf:{'+'.join(sources)}: {first_line(error)}") from error
        self._classes, self._tagger, self._threshold = tuple(classes), tagger, threshold
        self._device_is_free = Lock()

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        if not images:
            return []
        with self._device_is_free, torch.inference_mode():
            encoded = self._finder.encode(images)
            found = [(word, self._finder.find(encoded, word, self._threshold)) for word in self._classes]
        scenes = []
        for index, image in enumerate(images):
            things = [(word, thing) for word, results in found for thing in results[index]]
            height, width = image.shape[:2]
            scenes.append(Segmentation(height, width, tuple(_apart(things, (height, width)))))
        if self._tagger is None:
            return scenes
        return [replace(scene, stuff=tag.stuff) for scene, tag in zip(scenes, self._tagger(images), strict=True)]


def _apart(things: list[tuple[str, Thing]], size: tuple[int, int]) -> Iterator[Segment]:
    """Things that share no pixel, the surest first: two words for one thing give it once."""
    taken = np.zeros(size, np.uint8)
    for word, thing in sorted(things, key=lambda item: -item[1].score):
        mask = thing.mask & (1 - taken)
        if mask.any() and mask.sum() >= OVERLAP * thing.mask.sum():
            taken |= mask
            yield Segment.from_mask(word, True, round(thing.score, 6), mask)


class _Sam3:
    """SAM 3: words to masks in one model (Carion et al., "SAM 3: Segment Anything with Concepts", 2025)."""

    def __init__(self, source: str, device: torch.device) -> None:
        from transformers import Sam3Model, Sam3Processor

        self._model = Sam3Model.from_pretrained(source, use_safetensors=True).to(device).eval()
        self._processor: Any = Sam3Processor.from_pretrained(source)
        self._device = device

    def encode(self, images: Sequence[Image]) -> tuple[Any, list[tuple[int, int]]]:
        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"].to(self._device)
        return self._model.get_vision_features(pixels), [(image.shape[0], image.shape[1]) for image in images]

    def find(self, encoded: tuple[Any, list[tuple[int, int]]], word: str, threshold: float) -> list[list[Thing]]:
        features, sizes = encoded
        text = self._processor(text=[word] * len(sizes), return_tensors="pt")
        text = {name: text[name].to(self._device) for name in ("input_ids", "attention_mask")}
        outputs = self._model(vision_embeds=features, **text)
        results = self._processor.post_process_instance_segmentation(outputs, threshold=threshold, target_sizes=sizes)
        return [_things(result["scores"], result["masks"]) for result in results]


class _Boxes:
    """A zero-shot detector of words, and SAM 2, which outlines its boxes (Ravi et al., 2024)."""

    def __init__(self, detector: str, masks: str, device: torch.device) -> None:
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, Sam2Model, Sam2Processor

        self._detector = AutoModelForZeroShotObjectDetection.from_pretrained(detector, use_safetensors=True)
        self._detector.to(device).eval()
        self._words: Any = AutoProcessor.from_pretrained(detector)
        self._sam = Sam2Model.from_pretrained(masks, use_safetensors=True).to(device).eval()
        self._boxes: Any = Sam2Processor.from_pretrained(masks)
        self._device = device

    def encode(self, images: Sequence[Image]) -> list[Image]:
        return list(images)

    def find(self, encoded: list[Image], word: str, threshold: float) -> list[list[Thing]]:
        return [self._find(image, word, threshold) for image in encoded]

    def _find(self, image: Image, word: str, threshold: float) -> list[Thing]:
        inputs = self._words(images=[image], text=[[word]], return_tensors="pt").to(self._device)
        outputs = self._detector(**inputs)
        (result,) = self._words.post_process_grounded_object_detection(
            outputs, threshold=threshold, target_sizes=[image.shape[:2]]
        )
        boxes = result["boxes"].cpu()
        if not len(boxes):
            return []
        inputs = self._boxes(images=[image], input_boxes=[boxes.tolist()], return_tensors="pt").to(self._device)
        outlines = self._sam(**inputs, multimask_output=False).pred_masks
        (masks,) = self._boxes.post_process_masks(outlines.cpu(), inputs["original_sizes"].cpu())
        return _things(result["scores"], masks[:, 0])


def _things(scores: Tensor, masks: Tensor) -> list[Thing]:
    pixels = (masks > 0).to(torch.uint8).cpu().numpy()
    return [Thing(float(score), mask) for score, mask in zip(scores.tolist(), pixels, strict=True)]
