"""Nothing of a removed thing stays outside its mask: beside the fill, a photo differs by no more than JPEG's own loss."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from occpipe.core.config_file import load_config
from occpipe.core.types import Image, Mask
from occpipe.io.images import Limits, decode
from occpipe.io.images.encode import encode_like
from occpipe.models.inpainters import Inpainter, MaskGrowth, grow_mask
from occpipe.models.inpainters.opencv import OpenCvInpainter
from tests.helpers.scenes import encoded, photo


def with_thing(clean: Image) -> tuple[Image, Mask]:
    """A photo with a red thing in it, whose edge is soft over two pixels, and the thing's outline."""
    height, width = clean.shape[:2]
    mask: Mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 7, height // 5), 30, 0, 360, 1, -1)
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (5, 5), 0)[..., None]
    return np.rint(alpha * np.array((225, 30, 40)) + (1 - alpha) * clean).astype(np.uint8), mask


def in_ring(image: Image, clean: Image, mask: Mask) -> float:
    """The mean difference to the clean photo in a ring of 1% outside the mask, in levels."""
    ring = (grow_mask(mask, MaskGrowth(fraction=0.01)) == 1) & (mask == 0)
    return float(np.abs(image.astype(int) - clean)[ring].mean())


def removed(image: Image, mask: Mask, subsampling: str) -> Image:
    """A photo that was stored as JPEG, with a mask filled and stored again."""
    source = encoded(image, quality=85, subsampling=subsampling)
    filled = Inpainter(OpenCvInpainter())(decode(source, Limits()), mask)
    return decode(encode_like(filled, source, Limits()), Limits())


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_no_halo_stays_outside_the_mask(name: str, subsampling: str) -> None:
    """The reference is the same photo, stored, filled and stored again, in which there never was a thing."""
    clean = photo(name, 600)
    given, outline = with_thing(clean)
    settings = load_config().inpainter
    assert settings.dilation_pixels is None
    mask = grow_mask(outline, MaskGrowth(settings.dilation))
    difference, own = (in_ring(removed(image, mask, subsampling), clean, mask) for image in (given, clean))
    assert difference < 1.02 * own
    halo, usual = (in_ring(removed(image, outline, subsampling), clean, outline) for image in (given, clean))
    assert halo > 2 * usual, "a mask that is not grown leaves something to see"
