"""Photos and scenes for the tests: those that scikit-image carries, and simple files made on the spot."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image as Pil

from occpipe.core.types import Image

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


def photo(name: str, side: int = 320) -> Image:
    """A photo of scikit-image (`astronaut`, `chelsea`, `coffee`, `rocket`), its long side `side` pixels."""
    picture = Pil.fromarray(getattr(skimage.data, name)())
    picture.thumbnail((side, side))
    return np.asarray(picture.convert("RGB"))


def gradient(height: int = 64, width: int = 96) -> Image:
    """A smooth picture, H x W x 3."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)], -1).astype(np.uint8)


def moving(fmt: str) -> bytes:
    """A file of two frames or pages."""
    out = io.BytesIO()
    frames = [Pil.fromarray(gradient()), Pil.fromarray(gradient()[:, ::-1].copy())]
    frames[0].save(out, format=fmt, save_all=True, append_images=frames[1:])
    return out.getvalue()


def encoded(rgb: Image, fmt: str = "JPEG", **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    out = io.BytesIO()
    Pil.fromarray(rgb).save(out, format=fmt, **options)
    return out.getvalue()
