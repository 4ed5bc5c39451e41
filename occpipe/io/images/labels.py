"""Pictures that hold labels: masks, and the segment numbers of a panoptic PNG."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from occpipe.io.images.decode import UPRIGHT, decode, load, open_image, orientation_of
from occpipe.io.images.reasons import Limits


def decode_grey(data: bytes, limits: Limits) -> NDArray[np.uint8]:
    """The brightness of a picture, uint8 H x W, upright; also of one with one bit a pixel. Raises ImageError."""
    with open_image(data, replace(limits, bilevel=True)) as image:
        load(image)
        grey: Pil.Image = image.convert("L")
        orientation = orientation_of(image)
    if orientation in UPRIGHT:
        grey = grey.transpose(UPRIGHT[orientation][0])
    return np.array(grey, dtype=np.uint8)


def decode_numbers(data: bytes, limits: Limits) -> NDArray[np.uint32]:
    """The segment numbers of a panoptic PNG of COCO, H x W: R + 256 G + 65536 B. Raises ImageError."""
    rgb = decode(data, limits).astype(np.uint32)
    return np.asarray(rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16, np.uint32)
