"""High frequencies for a fill that a model made at less than full size: copied from where the photo looks alike.

A model works at some hundred pixels; a hole of 1,500 pixels is filled downscaled, and scaled up again it is blurred. Each
block of the small fill is looked up among the known patches of the small photo, and what the full-size photo has there
beyond the small one is added. The small fill says what is where, the photo how it looks from near.

Reading patches bounds the search. So all sources are compared at 120 pixels only. At 600 pixels those around the best one
are compared, for one pixel of each block: PatchMatch from a good guess, with a sixteenth of the targets.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from occpipe.core.types import Image, Mask
from occpipe.models.inpainters.patchmatch import SIDE, PatchLevel

COARSE_SIDE, FINE_SIDE = 120, 600
"""The longest sides at which patches are looked up, first everywhere and then from what was found."""
COARSE_BLOCK, BLOCK = 2, 4
"""Sides of the squares that have one source. At most 7, so that a square in the hole has its middle near the hole."""
ROUNDS, REACH = 6, 64
"""How often, and how far from what was found, the fine size is searched."""
_PLACE = (60.0, 60.0)
_BLURRED = 0.8  # a fill scaled up from less than this of its size wants detail


def restore_detail(image: Image, mask: Mask, fill: Image, small_mask: Mask, things: Mask) -> Image:
    """A fill at full size, H x W x 3, with the photo's own detail.

    `image` is the photo, H x W x 3, with the hole `mask`, H x W; `fill` is the filled photo at a smaller size, h x w x 3,
    and `small_mask` its hole, h x w. No detail is taken from `things`, H x W. Where the photo has no patch to copy from, or
    the fill is hardly smaller, it is only scaled up. Deterministic.
    """
    height, width = mask.shape
    smooth = np.asarray(cv2.resize(fill, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    if max(small_mask.shape) > _BLURRED * max(mask.shape):
        return smooth
    shifts = _shifts(fill, small_mask, things)
    if shifts is None:
        return smooth
    # what the photo has beyond its own small copy; inside the hole there is nothing to take
    detail = cv2.subtract(image, smooth, dtype=cv2.CV_16S)
    detail = cv2.copyTo(np.zeros_like(detail), mask, detail)
    down, across = (
        np.rint(length * cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST))
        for part, length in zip(shifts, (height, width), strict=True)
    )
    down += np.arange(height, dtype=np.float32)[:, None]
    across += np.arange(width, dtype=np.float32)
    detail = cv2.remap(detail, across, down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.add(smooth, detail, smooth, mask, cv2.CV_8U), np.uint8)


def _shifts(fill: Image, mask: Mask, things: Mask) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """How far each block's source lies below it and to its right, in heights and widths, R x C each; None without any."""
    with torch.inference_mode():
        coarse = _level(fill, mask, things, COARSE_SIDE, COARSE_BLOCK)
        fine = _level(fill, mask, things, FINE_SIDE, BLOCK)
        if coarse is None or fine is None:
            return None
        rows, _ = coarse.exact(coarse.patches(coarse.targets))
        source = _carried(coarse, coarse.sources[rows], fine)
        for _ in range(ROUNDS):
            source, _ = fine.search(source, REACH)
        shifts = torch.zeros(2, fine.height * fine.width)
        shifts[0, fine.targets] = (source // fine.width - fine.targets // fine.width) / fine.height
        shifts[1, fine.targets] = (source % fine.width - fine.targets % fine.width) / fine.width
    middles = shifts.view(2, fine.height, fine.width)[:, BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK].numpy()
    return np.ascontiguousarray(middles[0]), np.ascontiguousarray(middles[1])


def _level(fill: Image, mask: Mask, things: Mask, side: int, block: int) -> PatchLevel | None:
    """The patches of a fill at a size of whole blocks, at most `side` long; None without targets or sources."""
    scale = min(1.0, side / max(mask.shape))
    height, width = (max(1, int(length * scale) // block) * block for length in mask.shape)
    picture = cv2.resize(fill, (width, height), interpolation=cv2.INTER_AREA)
    hole, barred = (
        cv2.resize(part.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0
        for part in (mask, things)
    )
    image = torch.from_numpy(np.concatenate([picture, np.zeros_like(picture[..., :2])], 2)).float()
    generator = torch.Generator().manual_seed(0)
    if min(height, width) < SIDE:
        return None
    level = PatchLevel(image, torch.from_numpy(hole), _PLACE, generator, torch.from_numpy(barred), block)
    return level if len(level.targets) and len(level.sources) else None


def _carried(coarse: PatchLevel, source: Tensor, fine: PatchLevel) -> Tensor:
    """For each target of a fine level, the source of the coarse target next to it, as a flat index there; else -1."""
    y, x = fine.targets // fine.width, fine.targets % fine.width
    middle_y, middle_x = (
        (place * small // large // COARSE_BLOCK * COARSE_BLOCK + COARSE_BLOCK // 2).clamp(max=small - 1)
        for place, small, large in ((y, coarse.height, fine.height), (x, coarse.width, fine.width))
    )
    target = middle_y * coarse.width + middle_x
    row = coarse.row_of_target[target]
    source = torch.where(row >= 0, source[row.clamp(min=0)], target)
    y = y + (source // coarse.width - middle_y) * fine.height // coarse.height
    x = x + (source % coarse.width - middle_x) * fine.width // coarse.width
    source = y.clamp(0, fine.height - 1) * fine.width + x.clamp(0, fine.width - 1)
    return torch.where(fine.row_of_source[source] >= 0, source, -1)
