"""`maskrcnn-v2`: torchvision's Mask R-CNN with a ResNet-50 FPN (v2), 80 COCO things; stuff comes from a tagger.

He et al., "Mask R-CNN", ICCV 2017; Li et al., "Benchmarking Detection Transfer Learning with Vision Transformers", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock

import numpy as np
import torch
from torchvision.models.detection import MaskRCNN, MaskRCNN_ResNet50_FPN_V2_Weights, maskrcnn_resnet50_fpn_v2

from occpipe.core.errors import WeightsError, first_line
from occpipe.core.types import Image, Segment, Segmentation
from occpipe.models.segmenters import Segmenter

_CATEGORIES: list[str] = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"]


def build() -> MaskRCNN:
    """The network without weights, with the 91 outputs of the COCO checkpoint (index 0 is the background)."""
    return maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=len(_CATEGORIES))


class MaskRcnnSegmenter:
    """Instances from Mask R-CNN, and the `stuff` of `tagger`, which may be any segmenter.

    `weights` is a state dict as torch.save writes it, read without running code of the pickle. Raises WeightsError if it
    does not fit the network.
    """

    def __init__(
        self,
        weights: Path,
        device: str = "cpu",
        *,
        tagger: Segmenter | None = None,
        threshold: float = 0.5,
        network: MaskRCNN | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._network = network or build()
        try:
            self._network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except (OSError, EOFError, RuntimeError, ValueError, TypeError, UnpicklingError) as error:
            raise WeightsError(
                f"{weights} is no state dict of maskrcnn_resnet50_fpn_v2: {first_line(error)}"
            ) from error
        self._network.to(self.device).eval()
        self._tagger, self._device_is_free = tagger, Lock()
        self._threshold = threshold

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        if not images:
            return []
        tensors = [torch.from_numpy(image).to(self.device).permute(2, 0, 1).float() / 255 for image in images]
        with self._device_is_free, torch.inference_mode():
            results = self._network(tensors)
        tags = [scene.stuff for scene in self._tagger(images)] if self._tagger else [{} for _ in images]
        return [self._scene(image, result, stuff) for image, result, stuff in zip(images, results, tags, strict=True)]

    def _scene(self, image: Image, result: dict[str, torch.Tensor], stuff: dict[str, float]) -> Segmentation:
        height, width = image.shape[:2]
        occupied = np.zeros((height, width), np.uint8)
        segments = []
        for label, score, soft in zip(result["labels"], result["scores"], result["masks"], strict=True):
            if score < self._threshold:
                break  # torchvision sorts by score
            # A panoptic segmentation has one segment for each pixel, that of the instance with the higher score.
            mask = (soft[0].cpu().numpy() > 0.5).astype(np.uint8) & (1 - occupied)
            if mask.any():
                occupied |= mask
                segments.append(Segment.from_mask(_CATEGORIES[int(label)], True, float(score), mask))
        return Segmentation(height, width, tuple(segments), stuff)
