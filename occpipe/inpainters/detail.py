"""High frequencies for a fill that a model made at less than full size: copied from where the photo looks alike.

A model works at some hundred pixels; a hole of 1,500 pixels is filled downscaled, and scaled up again it is blurred. Each
patch of the small fill is looked up among the known patches of the small photo, and what the full-size photo has there
beyond the small one is added. The small fill says what is where, the photo how it looks from near.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from occpipe.inpainters.patchmatch import PatchLevel, near_hole, source_map
from occpipe.types import Image, Mask

_PLACE = (60.0, 60.0)
_ROUNDS = 6
_SIDE = 800  # pixels, the longest side at which patches are looked up: 1 GB
_BLURRED = 0.8  # a fill scaled up from less than this of its size wants detail


def restore_detail(image: Image, mask: Mask, fill: Image, small_mask: Mask, things: Mask) -> Image:
    """A fill at full size, H x W x 3, with the photo's own detail.

    `image` is the photo, H x W x 3, with the hole `mask`, H x W; `fill` is the filled photo at a smaller size, h x w x 3,
    and `small_mask` its hole, h x w. No detail is taken from `things`, H x W. Where the photo has no patch to copy from, or
    the fill is hardly smaller, it is only scaled up. Deterministic.
    """
    height, width = mask.shape
    smooth = _scaled(fill, height, width)
    if max(small_mask.shape) > _BLURRED * max(mask.shape):
        return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)
    scale = min(1.0, _SIDE / max(small_mask.shape))
    size = max(1, round(small_mask.shape[1] * scale)), max(1, round(small_mask.shape[0] * scale))
    fill = np.asarray(cv2.resize(fill, size, interpolation=cv2.INTER_AREA), np.uint8)
    small_mask, barred = (
        (cv2.resize(part.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
        for part in (small_mask, things)
    )
    source = _sources(fill, small_mask, barred)
    if source is None:
        return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)
    h, w = small_mask.shape
    y, x = np.nonzero(mask)
    row, col = y * h // height, x * w // width
    shift = source[row, col] - np.stack([row, col], 1)  # pixels of the small photo
    y2 = np.clip(y + np.rint(shift[:, 0] * height / h).astype(np.int64), 0, height - 1)
    x2 = np.clip(x + np.rint(shift[:, 1] * width / w).astype(np.int64), 0, width - 1)
    # what the photo has beyond its own small copy; inside the hole there is nothing to take
    own = image[y2, x2].astype(np.float32) - smooth[y2, x2]
    own[mask[y2, x2] == 1] = 0
    smooth[y, x] += own
    return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)


def _scaled(fill: Image, height: int, width: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(fill.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _sources(fill: Image, mask: Mask, things: Mask) -> NDArray[np.int64] | None:
    """For each pixel of the hole the row and column of the known patch nearest to its own, h x w x 2; None without any."""
    hole, barred = torch.from_numpy(mask) == 1, torch.from_numpy(things) == 1
    if not hole.any() or not source_map(near_hole(hole | barred)).any():
        return None
    with torch.inference_mode():
        image = torch.from_numpy(fill).float()
        image = torch.cat([image, torch.zeros_like(image[..., :2])], 2)
        level = PatchLevel(image, hole, _PLACE, torch.Generator().manual_seed(0), barred)
        field = torch.full_like(level.targets, -1)
        for _ in range(_ROUNDS):
            field, _ = level.search(field, reach=max(mask.shape) // 2)
    source = np.zeros((*mask.shape, 2), np.int64)
    targets, found = level.targets.numpy(), field.numpy()
    source.reshape(-1, 2)[targets] = np.stack([found // level.width, found % level.width], 1)
    return source
