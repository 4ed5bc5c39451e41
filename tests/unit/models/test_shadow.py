"""Cast shadows: found where there is one, and nothing taken where there is none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from occpipe.core.types import Image, Mask
from occpipe.models.inpainters.shadow import cast_shadow

SHAPE = (240, 320)


def ground(seed: int = 0) -> Image:
    """Grass under a sky."""
    rng = np.random.default_rng(seed)
    image = np.full((*SHAPE, 3), (110, 140, 80), np.float32) + rng.normal(0, 6, (*SHAPE, 1))
    image[:90] = (150, 190, 230)
    return np.clip(image, 0, 255).astype(np.uint8)


def thing() -> Mask:
    mask = np.zeros(SHAPE, np.uint8)
    cv2.ellipse(mask, (150, 130), (22, 45), 0, 0, 360, 1, -1)
    return mask


def dark(angle: float = 0.0) -> Mask:
    """An ellipse on the ground to the right of the thing's foot."""
    mask = np.zeros(SHAPE, np.uint8)
    cv2.ellipse(mask, (185, 172), (42, 9), angle, 0, 360, 1, -1)
    return mask & (1 - thing())


def darkened(image: Image, where: Mask, factor: float) -> Image:
    soft = cv2.GaussianBlur(where.astype(np.float32), (5, 5), 0)[..., None]
    return np.asarray(image * (1 - soft * (1 - factor)), np.uint8)


@pytest.mark.parametrize("factor", [0.4, 0.6])
def test_a_shadow_is_taken_along(factor: float) -> None:
    image, mask = darkened(ground(), dark(), factor), thing()
    image[mask == 1] = (200, 40, 40)
    found = cast_shadow(image, mask)
    assert not (found & mask).any()
    assert (found & dark()).sum() > 0.85 * dark().sum()
    assert found.sum() < 1.6 * dark().sum()


def test_the_same_at_another_size() -> None:
    image, mask = darkened(ground(), dark(), 0.5), thing()
    large = cv2.resize(image, (1280, 960), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    found = cast_shadow(large, np.kron(mask, np.ones((4, 4), np.uint8)))
    assert found.shape == (960, 1280)
    assert (found & np.kron(dark(), np.ones((4, 4), np.uint8))).sum() > 0.8 * 16 * dark().sum()


@pytest.mark.parametrize("case", ["none", "another colour", "not attached", "a dark half", "above"])
def test_what_is_no_shadow_stays(case: str) -> None:
    image, mask = ground(), thing()
    match case:
        case "another colour":
            image[dark() == 1] = (20, 30, 120)
        case "not attached":
            image = darkened(image, np.roll(dark(), 60, 1) & (1 - thing()), 0.5)
        case "a dark half":
            image[150:] = image[150:] // 3
        case "above":
            image = darkened(image, np.roll(dark(), -95, 0), 0.5)
    image[mask == 1] = (200, 40, 40)
    assert not cast_shadow(image, mask).any()


def test_at_the_edges_of_the_image() -> None:
    for y, x in ((0, 0), (235, 0), (235, 315), (120, 315)):
        mask = np.zeros(SHAPE, np.uint8)
        mask[y : y + 5, x : x + 5] = 1
        assert not cast_shadow(ground(), mask).any()
    assert not cast_shadow(ground(), np.zeros(SHAPE, np.uint8)).any()
