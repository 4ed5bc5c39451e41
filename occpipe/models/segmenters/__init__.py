"""Segmenters behind one interface. No heavy package is imported here; `occpipe.models.loading` loads a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from occpipe.core.errors import ConfigError
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


class Photo(NamedTuple):
    """An image of a corpus: its name, its size in pixels, and its pixels at the size that a model sees."""

    uri: str
    height: int
    width: int
    pixels: Image


@runtime_checkable
class LabelSource(Protocol):
    """A segmenter that reads labels by the names of images, in place of looking at their pixels."""

    def segment_named(self, photos: Sequence[Photo]) -> list[Segmentation | Exception]:
        """For each photo a segmentation, at any size with its ratio of sides, or the reason why there is none."""
        ...


UNNAMED = ConfigError("labels belong to the images of a corpus: use `occpipe clean` or `occpipe scan`")
"""What a label source raises for images without names."""
