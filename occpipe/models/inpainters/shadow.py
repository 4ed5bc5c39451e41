"""Detects the shadow that a thing casts on the ground, so that it is removed with the thing.

A shadow darkens the ground and hardly changes its colour. It begins at the foot of the thing and has no more texture than
the ground beside it. A doubtful region (a dark path, a pool, another dark thing) is not a shadow.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from occpipe.core.types import Image, Mask

# Chosen by eye on composed scenes. Shadows in sunlight on grass and stone have 0.3 to 0.7 of the lightness around them.
_MAX_LIGHTNESS = 0.82  # of the lightness of the ground around
_MAX_COLOUR_SHIFT = 12.0  # levels of a and b (CIE Lab, 8 bits), compared with the ground in less light
_MAX_TEXTURE = 1.5  # times the texture of the ground around
_MAX_SIDE = 512  # pixels, the longest side of the picture that is searched
_MAX_AREA = 0.8  # of the thing's area
_FOOT = 0.4  # of the thing's height, from below: where a shadow begins
_MAX_EDGE = 0.25  # of the outline that may be at the edge of the searched region


def cast_shadow(image: Image, thing: Mask) -> Mask:
    """The shadow of a thing, H x W in {0, 1}, without the thing itself; empty if none is detected.

    `image` is H x W x 3, `thing` its mask, H x W; each connected part of the mask has its own shadow.
    """
    height, width = thing.shape
    scale = min(1.0, _MAX_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    whole = cv2.resize(thing, size, interpolation=cv2.INTER_NEAREST)
    shadow = np.zeros((size[1], size[0]), np.uint8)
    count, parts = cv2.connectedComponents(np.asarray(whole, np.uint8), connectivity=8)
    for number in range(1, count):
        shadow |= _of_one(small, np.asarray(parts == number, np.uint8), np.asarray(whole, np.uint8))
    if not shadow.any():
        return np.zeros_like(thing)
    return np.asarray(
        (cv2.resize(shadow, (width, height), interpolation=cv2.INTER_NEAREST) == 1) & (thing == 0), np.uint8
    )


def _of_one(image: Image, thing: Mask, things: Mask) -> Mask:
    x, y, w, h = cv2.boundingRect(thing)
    reach = max(w, h)
    rows = slice(y + h // 2, min(thing.shape[0], y + h + reach // 2))
    cols = slice(max(0, x - reach), min(thing.shape[1], x + w + reach))
    box = (rows, cols)
    shadow: Mask = np.zeros_like(thing)
    if min(thing[box].shape) < 3:
        return shadow
    lab = cv2.cvtColor(image[box], cv2.COLOR_RGB2LAB).astype(np.float32)
    ground = (things[box] == 0).astype(np.float32)
    around = _mean_around(lab, ground, reach)
    rough = cv2.blur(np.abs(lab[..., 0] - cv2.blur(lab[..., 0], (5, 5))), (5, 5))
    usual = _mean_around(rough[..., None], ground, reach)[..., 0]
    dark = lab[..., 0] < _MAX_LIGHTNESS * around[..., 0]
    # less light scales L* + 16, a* and b* alike (CIE 1976); 8-bit Lab has L* times 2.55, and a* and b* plus 128
    light = (lab[..., :1] + 40.8) / (around[..., :1] + 40.8)
    alike = np.abs(lab[..., 1:] - 128 - (around[..., 1:] - 128) * light).max(2) < _MAX_COLOUR_SHIFT
    candidate = (dark & alike & (rough < _MAX_TEXTURE * usual + 2) & (ground == 1)).astype(np.uint8)
    candidate = np.asarray(cv2.morphologyEx(candidate, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)
    foot = thing.copy()
    foot[: y + round(h * (1 - _FOOT))] = 0
    touch = cv2.dilate(foot, np.ones((7, 7), np.uint8))[box]
    count, parts, stats, _ = cv2.connectedComponentsWithStats(candidate, connectivity=8)
    for number in range(1, count):
        part = parts == number
        at_edge = int(part[-1].sum() + part[:, 0].sum() + part[:, -1].sum())
        outline = int((part & (cv2.erode(part.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)).sum())
        fits = stats[number, cv2.CC_STAT_AREA] <= _MAX_AREA * thing.sum() and at_edge <= _MAX_EDGE * outline
        if fits and (part & (touch == 1)).any():
            shadow[box] |= part.astype(np.uint8)
    if shadow.any():  # its soft edge, and the gap to the thing
        edge = max(5, reach // 20) | 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (edge, edge))
        shadow = np.asarray(cv2.dilate(shadow, kernel), np.uint8)
    return shadow


def _mean_around(values: NDArray[np.float32], ground: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """The mean of the ground within `reach` pixels of each pixel, H x W x C."""
    window = (2 * reach + 1, 2 * reach + 1)
    total = np.maximum(cv2.blur(ground, window, borderType=cv2.BORDER_CONSTANT), 1e-6)[..., None]
    summed = cv2.blur(values * ground[..., None], window, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(summed.reshape(values.shape) / total, np.float32)
