"""What a model must offer to be run on crops, and nothing more."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class CropInpainter(Protocol):
    """A model that fills holes in crops of the sizes it takes.

    `multiple`: both sides of a crop are a multiple of this many pixels (1 = any size, and crops are never padded).
    `fixed_size`: both sides of a crop are exactly this many pixels; None = any.
    `max_side`: the longest side in pixels that the model works at; larger crops reach it downscaled.
    A model that copies may say by `context` that it wants more around a hole than others; see `Inpainter`.
    """

    multiple: int
    fixed_size: int | None
    max_side: int

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crops with their holes filled.

        `images` is RGB uint8, B x H x W x 3; `masks` is uint8, B x H x W in {0, 1}, 1 = hole. Returns B x H x W x 3.
        Pixels outside the hole need not be kept: the engine takes only the hole from the result.
        """
        ...


@runtime_checkable
class ThingAware(CropInpainter, Protocol):
    """A model that copies, and can be told what not to copy."""

    def fill_beside(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8], things: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """As `fill`, taking nothing from `things`, B x H x W in {0, 1}: the things that stay.

        What was behind a removed thing is background, not a part of the thing beside it.
        """
        ...
