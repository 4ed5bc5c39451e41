"""What happens to a fill on its way into the photo: tone at the seam, and detail for fills made at less than full size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from occpipe.core.types import Image, Mask
from occpipe.models.inpainters import Inpainter
from occpipe.models.inpainters.compose import seam_shift
from occpipe.models.inpainters.detail import restore_detail
from tests.unit.models.test_inpainters import disc, tiles

NOTHING: Mask = np.zeros((400, 500), np.uint8)


def slope(height: int = 120, width: int = 160) -> Image:
    """A soft ramp from left to right."""
    ramp = np.linspace(60, 180, width)[None].repeat(height, 0)
    return np.stack([ramp, ramp * 0.5, 200 - ramp * 0.5], 2).astype(np.uint8)


def plus(image: Image, change: NDArray[np.float64] | float, mask: Mask) -> Image:
    """An image with something added within a mask."""
    return np.clip(np.rint(image + np.asarray(change) * mask[..., None]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("factor", [1, 8])  # the larger one is looked at downscaled
@pytest.mark.parametrize("step", [-15.0, 8.0])
def test_a_fill_of_another_tone_is_brought_to_that_of_the_photo(step: float, factor: int) -> None:
    truth = slope(120 * factor, 160 * factor)
    mask = disc(120 * factor, 160 * factor, 60 * factor, 80 * factor, 30 * factor)
    filled = plus(truth, step, mask)
    shift = seam_shift(filled, mask)
    assert (shift[mask == 0] == 0).all()
    assert np.abs(filled + shift - truth)[mask == 1].mean() < 0.4 * abs(step)


def test_a_step_that_differs_along_the_seam_is_followed() -> None:
    truth, mask = slope(), disc(120, 160, 60, 80, 30)
    filled = plus(truth, np.linspace(-12, 12, 160)[None, :, None], mask)
    assert np.abs(filled + seam_shift(filled, mask) - truth)[mask == 1].mean() < 2.5


def test_what_is_no_step_of_tone_stays() -> None:
    mask = disc(120, 160, 60, 80, 30)
    assert np.abs(seam_shift(slope(), mask)).max() < 3  # a fill that fits is left alone
    assert np.abs(seam_shift(tiles(120, 160), mask)).mean() < 1.5  # so is a rough one, whose means say little
    black = slope() * (1 - mask)[..., None]  # no other tone but another thing
    assert np.abs(seam_shift(black, mask)).max() < 10
    edge = slope()
    edge[60:] = 20  # the hole lies half on the one side of an edge of the photo
    assert np.abs(seam_shift(edge, np.roll(mask, 30, 0))).max() < 10


@pytest.mark.parametrize("mask", [np.zeros((9, 7), np.uint8), np.ones((9, 7), np.uint8), np.eye(1, 7, dtype=np.uint8)])
def test_masks_without_a_seam_or_without_room(mask: Mask) -> None:
    filled = np.full((*mask.shape, 3), 90, np.uint8)
    assert np.abs(seam_shift(filled, mask)).max() < 1


def stripes(height: int, width: int) -> Image:
    """Fine texture on a coarse pattern: the texture is lost where the picture is shrunk to a third."""
    yy, xx = np.mgrid[:height, :width]
    fine = np.random.default_rng(0).normal(0, 25, (height, width))
    coarse = 120 + 50 * np.sin(xx / 40) + 30 * np.sin(yy / 55)
    grey = np.clip(coarse + fine, 0, 255)[..., None]
    return np.asarray(grey * np.array([1, 0.9, 0.8]), np.uint8)


def small(image: Image, mask: Mask, factor: int) -> tuple[Image, Mask]:
    size = image.shape[1] // factor, image.shape[0] // factor
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.uint8), (cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)


def test_detail_comes_back_at_full_size() -> None:
    truth, mask = stripes(360, 480), disc(360, 480, 180, 240, 70)
    fill, hole = small(truth, mask, 3)  # as if the model had filled it rightly
    given = truth * (1 - mask)[..., None]
    result = restore_detail(given, mask, fill, hole, NOTHING[:360, :480])
    scaled = cv2.resize(fill, (480, 360), interpolation=cv2.INTER_CUBIC)
    inside = mask == 1
    roughness = [cv2.Laplacian(i.astype(np.float32), cv2.CV_32F)[inside].std() for i in (result, scaled, truth)]
    assert roughness[1] < 0.4 * roughness[2]
    assert 0.7 * roughness[2] < roughness[0] < 1.2 * roughness[2]
    # and it says at every place what the small fill says
    (again, _), coarse = small(result, mask, 3), cv2.erode(hole, np.ones((3, 3), np.uint8)) == 1
    assert np.abs(again[coarse].astype(int) - fill[coarse]).mean() < 12
    assert (restore_detail(given, mask, fill, hole, NOTHING[:360, :480]) == result).all()


def test_without_a_patch_to_copy_the_fill_is_scaled_up() -> None:
    image, mask = stripes(30, 40), np.pad(np.ones((24, 34), np.uint8), 3)
    fill, hole = small(image, mask, 3)
    result = restore_detail(image * (1 - mask)[..., None], mask, fill, hole, NOTHING[:30, :40])
    scaled = cv2.resize(fill.astype(np.float32), (40, 30), interpolation=cv2.INTER_CUBIC)
    assert np.abs(result - np.clip(scaled, 0, 255)).max() <= 1


class Flat:
    """A model of 128 pixels that fills with the mean of what it sees around the hole."""

    multiple = 8
    fixed_size: int | None = 128
    max_side = 128

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        out = images.copy()
        for image, mask in zip(out, masks, strict=True):
            image[mask == 1] = image[mask == 0].mean(0)
        return out


def test_the_engine_restores_detail_for_every_model() -> None:
    truth, mask = stripes(400, 400), disc(400, 400, 200, 200, 70)
    result = Inpainter(Flat())(truth * (1 - mask)[..., None], mask)
    inside = disc(400, 400, 200, 200, 60) == 1
    rough, wanted = (cv2.Laplacian(i.astype(np.float32), cv2.CV_32F)[inside].std() for i in (result, truth))
    assert rough > 0.6 * wanted
    assert (result[mask == 0] == truth[mask == 0]).all()
