"""Universal segmentation models of transformers: EoMT, Mask2Former, OneFormer and their kin.

Only safetensors are read and no code of the model's repository is run. The processor that lies beside the weights makes
the input and undoes its padding. Which labels are things comes from the COCO-Stuff names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from occpipe.classes import is_thing
from occpipe.errors import WeightsError, first_line
from occpipe.segmenters import Segmenter
from occpipe.types import Image, Segment, Segmentation


class HuggingFaceSegmenter:
    """A panoptic model from a local folder or a hub id; where it knows no stuff, `stuff` is that of `tagger`.

    `threshold` is the least class probability of a segment, `mask_threshold` the least mask probability of a pixel, and
    `overlap` the least share of its own mask that a segment keeps when surer ones have taken theirs.
    Raises WeightsError where transformers is missing or the folder holds no such model.
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
            self._tasks = model.config.model_type == "oneformer"
            processors = AutoProcessor if self._tasks else AutoImageProcessor
            self._processor: Any = processors.from_pretrained(source)
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise WeightsError(f"hf:{source}: {first_line(error)}") from error
        self.device = torch.device(device)
        self._model = model.to(self.device).eval()
        self._labels: dict[int, str] = {int(key): name for key, name in model.config.id2label.items()}
        self._stuff = {key for key, name in self._labels.items() if not is_thing(name)}
        self._tagger = None if self._stuff else tagger
        self._thresholds = {
            "threshold": threshold,
            "mask_threshold": mask_threshold,
            "overlap_mask_area_threshold": overlap,
        }

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        # Padding in a batch of mixed sizes is not undone by every processor, so only images of one size share a batch.
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            by_size[image.shape].append(index)
        scenes: dict[int, Segmentation] = {}
        for indices in by_size.values():
            scenes.update(zip(indices, self._batch([images[i] for i in indices]), strict=True))
        found = [scenes[index] for index in range(len(images))]
        if not found or self._tagger is None:
            return found
        tags = self._tagger(images)
        return [replace(scene, stuff=tag.stuff) for scene, tag in zip(found, tags, strict=True)]

    def _batch(self, images: list[Image]) -> list[Segmentation]:
        extra = {"task_inputs": ["panoptic"] * len(images)} if self._tasks else {}
        inputs = self._processor(images=images, return_tensors="pt", **extra)
        tensors = {key: value.to(self.device) for key, value in inputs.items() if isinstance(value, torch.Tensor)}
        with torch.inference_mode():
            outputs = self._model(**tensors)
        sizes = [image.shape[:2] for image in images]
        found = self._post_process(outputs, sizes)
        return [self._scene(result, *size) for result, size in zip(found, sizes, strict=True)]

    def _post_process(self, outputs: Any, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
        processor = getattr(self._processor, "image_processor", self._processor)
        # The families name the same argument in two ways; without it, stuff would fall apart into instances.
        fuse: dict[str, Any] = (
            {"stuff_classes": sorted(self._stuff)}
            if self._model.config.model_type.startswith("eomt")
            else {"label_ids_to_fuse": self._stuff}
        )
        results: list[dict[str, Any]] = processor.post_process_panoptic_segmentation(
            outputs, target_sizes=sizes, **fuse, **self._thresholds
        )
        return results

    def _scene(self, result: dict[str, Any], height: int, width: int) -> Segmentation:
        ids = result["segmentation"].cpu().numpy()
        segments = []
        stuff: dict[str, float] = {}
        for info in result["segments_info"]:
            mask = (ids == info["id"]).astype(np.uint8)
            if not mask.any():
                continue
            label = self._labels[info["label_id"]]
            segment = Segment.from_mask(label, info["label_id"] not in self._stuff, info["score"], mask)
            segments.append(segment)
            if not segment.is_thing:
                stuff[label] = max(stuff.get(label, 0.0), segment.score)
        return Segmentation(height, width, tuple(segments), stuff)
