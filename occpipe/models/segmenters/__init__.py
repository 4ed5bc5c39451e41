"""Segmenters behind one interface. Nothing heavy is imported here; `occpipe.models.loading` loads one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from occpipe.core.types import Image, Segmentation


class Segmenter(Protocol):
    """Sees things and stuff in a batch of images of any sizes."""

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:
        """One segmentation for each image, at that image's size."""
        ...
