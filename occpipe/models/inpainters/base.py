"""The interface of a model that fills crops."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class CropInpainter(Protocol):
    """A model that fills holes in crops.

    `multiple`: both sides of a crop are a multiple of so many pixels (1 = any size, and crops are never padded).
    `fixed_size`: both sides of a crop have exactly so many pixels; None = any.
    `max_side`: the longest side of a crop in pixels; larger crops are downscaled before.
    A model may have an attribute `context`, the margin around a hole that it needs by default; see `Inpainter`.
    """

    multiple: int
    fixed_size: int | None
    max_side: int

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill the holes of crops.

        Args:
            images: RGB uint8, B x H x W x 3.
            masks: uint8, B x H x W in {0, 1}, 1 = hole.

        Returns:
            RGB uint8, B x H x W x 3; the engine uses only the pixels in the holes.
        """
        ...


@runtime_checkable
class ThingAware(CropInpainter, Protocol):
    """A model that copies pixels, and can leave out given things."""

    def fill_beside(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8], things: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Like `fill`, without copying from `things`, B x H x W in {0, 1}: the things that stay.

        Behind a removed thing there is background, not a part of the thing beside it.
        """
        ...
