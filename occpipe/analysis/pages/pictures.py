"""Thumbnails of a bounded size in bytes, and outlines of masks as SVG paths."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image as Pil

from occpipe.core.masks import rescale
from occpipe.core.types import Image, Mask

SIDE = 640
"""Long side of a thumbnail in pixels, where its bytes allow it."""
_MIN_SIDE = 48
_QUALITY = 76  # of WebP: below it, texture of fills can no longer be judged
_MAX_POINTS = 160


def view_of(height: int, width: int) -> tuple[int, int]:
    """Width and height of the picture in the page, in the units of its outlines."""
    scale = SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def thumbnails(pictures: Sequence[Image], max_bytes: int) -> list[str]:
    """Pictures of one size, RGB H x W x 3, as data URIs of WebP of one size, each of at most `max_bytes`.

    They shrink until they fit; an empty list where they would be too small to be of use.
    """
    raw = max_bytes * 3 // 4 - 24  # base64, and the head of the URI
    side = float(min(SIDE, max(pictures[0].shape[:2], default=SIDE)))
    while side >= _MIN_SIDE:
        files = [_webp(picture, round(side)) for picture in pictures]
        largest = max(map(len, files))
        if largest <= raw:
            return [f"data:image/webp;base64,{base64.b64encode(file).decode('ascii')}" for file in files]
        side *= min(0.95, 0.97 * max(0.1, raw / largest) ** 0.5)
    return []


def outline(mask: Mask, view: tuple[int, int]) -> str:
    """The edge of a mask, H x W, as an SVG path in the units of its `view_of`, to a unit or so; empty for an empty mask."""
    width, height = view
    small = rescale(mask, height, width)
    if not small.any():  # a speck: each of its pixels shows
        rows, columns = np.nonzero(mask)
        small[rows * height // mask.shape[0], columns * width // mask.shape[1]] = 1
    contours, _ = cv2.findContours(small, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    near = 0.8
    while True:
        shapes = [cv2.approxPolyDP(contour, near, closed=True)[:, 0] for contour in contours]
        if sum(map(len, shapes)) <= _MAX_POINTS or near > SIDE:
            break
        near *= 1.6
    shapes = sorted(shapes, key=len, reverse=True)[:_MAX_POINTS]
    return "".join("M" + "L".join(f"{x} {y}" for x, y in shape.tolist()) + "z" for shape in shapes)


def _webp(picture: Image, side: int) -> bytes:
    small = Pil.fromarray(picture)
    small.thumbnail((side, side), Pil.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    small.save(out, format="WEBP", quality=_QUALITY, method=3)
    return out.getvalue()
