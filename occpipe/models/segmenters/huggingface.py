"""Universal segmentation models of transformers: EoMT, Mask2Former, OneFormer and related ones.

Only safetensors are read and no code of the model's repository is run. The processor beside the weights makes the input.
The COCO-Stuff names decide which labels are things.

The forward pass limits the speed of an EoMT. So its photos are padded as bytes, normalised on the device, and share a batch
at any size. Its segments are merged on the device, and threads encode their run lengths.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from occpipe.core.classes import is_thing
from occpipe.core.errors import WeightsError, first_line
from occpipe.core.types import ClassShare, Image, Segment, Segmentation
from occpipe.models.segmenters import Segmenter
from occpipe.models.segmenters.panoptic import Merged, MergeRule, merge

logger = logging.getLogger(__name__)
THREADS = 4
"""Threads that encode run lengths; pycocotools releases the lock of Python meanwhile."""
_BYTES = "bytes"


@dataclass(frozen=True)
class Batch:
    """Input of a model: tensors, or bytes, B x H x W x 3; sizes: padded, of each photo in it, and of the photo itself."""

    tensors: dict[str, Tensor]
    padded: tuple[int, int]
    contents: list[tuple[int, int]]
    sizes: list[tuple[int, int]]


class HuggingFaceSegmenter:
    """A panoptic model from a local folder or a hub id; a model without stuff classes gets the `stuff` of `tagger`.

    `threshold` is the minimal class probability of a segment, `mask_threshold` the minimal mask probability of a pixel. A
    segment must keep the share `overlap` of its own mask after segments with higher scores. With `half` the model computes
    in bfloat16 on a GPU. Raises WeightsError if transformers is missing or the folder has no such model.
    """

    def __init__(
        self,
        source: str | Path,
        device: str = "cpu",
        *,
        tagger: Segmenter | None = None,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        overlap: float = 0.8,
        half: bool = True,
    ) -> None:
        try:
            from transformers import (
                AutoImageProcessor,
                AutoModelForUniversalSegmentation,
                AutoProcessor,
            )
        except ImportError as error:
            raise WeightsError("transformers is not installed: pip install 'occpipe[hf]'") from error
        try:
            model = AutoModelForUniversalSegmentation.from_pretrained(source, use_safetensors=True)
            kind = model.config.model_type
            processors = AutoProcessor if kind == "oneformer" else AutoImageProcessor
            self._processor: Any = processors.from_pretrained(source)
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise WeightsError(f"hf:{source}: {first_line(error)}") from error
        self.device = torch.device(device)
        self._model = model.to(self.device).eval()
        self._labels: dict[int, str] = {int(key): name for key, name in model.config.id2label.items()}
        self._stuff = frozenset(key for key, name in self._labels.items() if not is_thing(name))
        self._tagger = None if self._stuff else tagger
        self._rule = MergeRule(_family(kind), self._stuff, threshold, mask_threshold, overlap)
        self._text = {"task_inputs": ["panoptic"]} if kind == "oneformer" else {}
        self._pads_singly = (
            self._rule.family == "eomt" and self._processor.do_pad and not self._processor.do_split_image
        )
        self._half = half and self.device.type == "cuda"
        self._batch_that_fits: int | None = None
        self._threads, self._device_is_free = ThreadPoolExecutor(THREADS), Lock()

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        # Not every processor undoes the padding of a batch of mixed sizes; for those, only equal sizes share a batch.
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[() if self._pads_singly else image.shape].append(index)
        scenes: dict[int, Segmentation] = {}
        for indices in groups.values():
            scenes.update(zip(indices, self._segment([images[i] for i in indices]), strict=True))
        segmentations = [scenes[index] for index in range(len(images))]
        if not segmentations or self._tagger is None:
            return segmentations
        tags = self._tagger(images)
        return [replace(scene, stuff=tag.stuff) for scene, tag in zip(segmentations, tags, strict=True)]

    def prepare(self, images: Sequence[Image]) -> Batch:
        """The input for some photos, on the host."""
        sizes = [image.shape[:2] for image in images]
        if self._pads_singly:
            return self._padded(images, sizes)
        text = {name: value * len(images) for name, value in self._text.items()}
        inputs = self._processor(images=list(images), return_tensors="pt", **text)
        tensors = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
        height, width = tensors["pixel_values"].shape[-2:]
        return Batch(tensors, (height, width), [(height, width)] * len(images), sizes)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> list[Merged]:
        """The segments of a batch as label maps, merged on the device."""
        inputs = {name: value.to(self.device, non_blocking=True) for name, value in batch.tensors.items()}
        if _BYTES in inputs:
            inputs = {"pixel_values": self.normalised(inputs[_BYTES])}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            outputs = self._model(**inputs)
        logits = outputs.class_queries_logits, outputs.masks_queries_logits
        return merge(*logits, self._rule, batch.padded, batch.contents, batch.sizes)

    def normalised(self, pixels: Tensor) -> Tensor:
        """The input of the model, B x 3 x H x W, from bytes, B x H x W x 3."""
        mean, deviation = (
            torch.tensor(value, device=pixels.device)[:, None, None]
            for value in (self._processor.image_mean, self._processor.image_std)
        )
        values: Tensor = (pixels.permute(0, 3, 1, 2).float() * self._processor.rescale_factor - mean) / deviation
        return values

    def _segment(self, images: list[Image]) -> list[Segmentation]:
        merged: list[Merged] = []
        while len(merged) < len(images):
            part = images[len(merged) :][: self._batch_that_fits]
            try:
                batch = self.prepare(part)
                with self._device_is_free:
                    merged += self.forward(batch)
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self._batch_that_fits = len(part) // 2
                logger.warning("out of memory with %d photos; the batch is now %d", len(part), self._batch_that_fits)
            if self.device.type == "cuda":  # after the block above, which releases the tensors of the failed attempt
                torch.cuda.empty_cache()
        return list(self._threads.map(self._scene, merged))

    def _padded(self, images: Sequence[Image], sizes: list[tuple[int, int]]) -> Batch:
        """Photos in the upper left corners of equal squares, as bytes; the device normalises them."""
        processor = self._processor
        height, width = (
            processor.size["shortest_edge"],
            processor.size["longest_edge"] or processor.size["shortest_edge"],
        )
        contents = [_fitted(size, (height, width)) for size in sizes]
        shape, on_gpu = (len(images), height, width, 3), self.device.type == "cuda"
        pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=on_gpu)
        for place, image, size in zip(pixels.numpy(), images, contents, strict=True):
            place[: size[0], : size[1]] = image if image.shape[:2] == size else _resized(image, size)
        return Batch({_BYTES: pixels}, (height, width), contents, sizes)

    def _scene(self, merged: Merged) -> Segmentation:
        segments = []
        stuff: dict[str, float] = {}
        for info in merged.segments:
            mask = (merged.label_map == info.number).astype(np.uint8)
            if not mask.any():
                continue
            label = self._labels[info.label]
            shares = [ClassShare(self._labels[c], p) for c, p in info.classes if c not in self._stuff]
            is_thing = info.label not in self._stuff
            chance = sum(share.probability for share in shares) if is_thing else 0.0
            segments.append(Segment.from_mask(label, is_thing, info.score, mask, shares if is_thing else (), chance))
            if info.label in self._stuff:
                stuff[label] = max(stuff.get(label, 0.0), info.score)
        height, width = merged.label_map.shape
        return Segmentation(height, width, tuple(segments), stuff)


def _family(kind: str) -> Literal["eomt", "mask2former", "oneformer"]:
    if kind.startswith("eomt"):
        return "eomt"
    return "mask2former" if kind == "mask2former" else "oneformer"  # MaskFormer scales its masks in the same way


def _fitted(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The size of a photo scaled into a box; a photo that touches the box keeps its size."""
    if (size[0] == box[0] and size[1] <= box[1]) or (size[1] == box[1] and size[0] <= box[0]):
        return size
    from transformers.image_transforms import get_size_with_aspect_ratio

    height, width = get_size_with_aspect_ratio(size, *box)
    return int(height), int(width)


def _resized(image: Image, size: tuple[int, int]) -> Image:
    """A photo at another size, scaled like in the processor."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return np.asarray(transforms.resize(pixels, [*size], antialias=True).permute(1, 2, 0).numpy())
