"""Inserts filled pixels into a photo: their tone is matched at the seam, and no other pixel changes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from occpipe.core.types import Box, Image, Mask

# Chosen on 24 held-out photos, see docs/experiments/inpainter.md. A much larger step at the seam, in levels, is the
# edge of a thing rather than another tone. If the levels of the photo itself spread more than this, a step of the means
# is not significant.
_USUAL_STEP = 30.0
_USUAL_SPREAD = 20.0
_SIDE = 768  # pixels, the longest side at which the shift is computed


def paste(result: Image, filled: Image, window: Box, mask: Mask, hole: Box, *, match_seam: bool) -> None:
    """Insert `filled`, the pixels of a window, into `result`, H x W x 3, in place, where `mask`, H x W, is 1 within `hole`.

    `match_seam` shifts the tone of the fill to that of the photo. The edge of the image is not a seam. Pixels of `result`
    under the mask are not read, because they belong to the thing, and a rim of it would stay.
    """
    # One more pixel around the hole, if the image has it, because a border of zeros would count as an edge.
    y, x = max(0, hole.y - 1), max(0, hole.x - 1)
    wide = np.s_[y : hole.y + hole.height + 1, x : hole.x + hole.width + 1]
    inner = np.s_[hole.y - y : hole.y - y + hole.height, hole.x - x : hole.x - x + hole.width]
    around = np.ascontiguousarray(mask[wide])
    height, width = around.shape
    new = np.ascontiguousarray(filled[y - window.y :, x - window.x :][:height, :width])
    if match_seam:
        joined = np.asarray(cv2.copyTo(new, around, result[wide].copy()), np.uint8)
        new = np.rint(np.clip(new + seam_shift(joined, around), 0, 255)).astype(np.uint8)
    place = result[hole.y : hole.y + hole.height, hole.x : hole.x + hole.width]
    place[:] = cv2.copyTo(np.ascontiguousarray(new[inner]), np.ascontiguousarray(around[inner]), place.copy())


def seam_shift(filled: Image, mask: Mask) -> NDArray[np.float32]:
    """The shift that makes the tone of a fill equal that of the photo at the edge, H x W x 3; 0 outside the mask, H x W.

    The difference of the means on both sides of the edge, continued inwards as a membrane, as in Farbman et al.,
    "Coordinates for Instant Image Cloning", SIGGRAPH 2009; less if the photo is rough. It is smooth, so that it is computed
    at a smaller size for a large fill.
    """
    height, width = mask.shape
    scale = min(1.0, _SIDE / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = np.asarray(cv2.resize(filled, size, interpolation=cv2.INTER_AREA), np.uint8)
        shift = seam_shift(small, np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8))
        shift = np.asarray(cv2.resize(shift, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        shift *= mask[..., None]
        return shift
    known, hole = (1 - mask).astype(np.float32), mask.astype(np.float32)
    edge = (cv2.blur(known, (3, 3), borderType=cv2.BORDER_REPLICATE) > 0) & (mask == 1)
    if not edge.any():
        return np.zeros((height, width, 3), np.float32)
    pixels = filled.astype(np.float32)
    outside, inside = _local_mean(pixels, known), _local_mean(pixels, hole)
    variance = np.maximum(_local_mean(np.square(pixels), known) - np.square(outside), 0).mean(2, keepdims=True)
    raw = outside - inside
    largest = np.abs(raw).max(2, keepdims=True)
    step = raw / (1 + np.square(largest / _USUAL_STEP)) / (1 + variance / _USUAL_SPREAD**2)
    weight = edge.astype(np.float32)
    return np.asarray(_spread((step * weight[..., None]).astype(np.float32), weight) * hole[..., None], np.float32)


def _local_mean(values: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weighted mean of the 5 x 5 pixels around each."""
    total = np.maximum(cv2.blur(weight, (5, 5)), 1e-6)
    return np.asarray(cv2.blur(values * weight[..., None], (5, 5)) / total[..., None], np.float32)


def _spread(values: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted values continued smoothly to pixels without values, coarse to fine ("pull-push").

    S. Gortler et al., "The Lumigraph", SIGGRAPH 1996.
    """
    height, width = weight.shape
    if max(height, width) <= 2 or weight.min() >= 1:
        return np.asarray(values / np.maximum(weight, 1e-6)[..., None], np.float32)
    size = (width + 1) // 2, (height + 1) // 2
    total = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    half = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    full = np.minimum(total * 4, 1)
    scaled = half * (full / np.maximum(total, 1e-6))[..., None]
    spread = _spread(np.asarray(scaled, np.float32), full)
    coarse = cv2.resize(spread, (width, height), interpolation=cv2.INTER_LINEAR)
    smooth = cv2.GaussianBlur(weight, (5, 5), 0)
    own = cv2.GaussianBlur(values, (5, 5), 0) / np.maximum(smooth, 1e-6)[..., None]
    share = np.minimum(smooth * 2, 1)[..., None]
    return np.asarray(share * own + (1 - share) * coarse, np.float32)
