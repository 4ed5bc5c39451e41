"""Segmenters behind one interface. No heavy package is imported here; `occpipe.models.loading` loads a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from occpipe.core.types import Image, Segmentation


class Segmenter(Protocol):
    """Segments images into things and stuff."""

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        """Segment a batch of images.

        Args:
            images: RGB uint8, H x W x 3, of any sizes.

        Returns:
            One segmentation for each image, at the size of that image.
        """
        ...
