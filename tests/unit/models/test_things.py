from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from occpipe.models.segmenters.things import Parts, join, parts_of

CAT, DOG, BOAT, GRASS = range(4)
IS_THING = np.array([True, True, True, False])
FAMILY = np.array([-1, -1, 2])


def seen(*columns: tuple[int, tuple[float, float, float]]) -> Parts:
    """A strip of parts side by side on grass, each 10 pixels wide: its label, and the probabilities of cat, dog, boat."""
    labels = np.full((20, 10 * len(columns) + 20), GRASS, np.uint8)
    probabilities = np.zeros((3, *labels.shape), np.float32)
    for place, (label, shares) in enumerate(columns):
        box = np.s_[5:15, 10 + 10 * place : 20 + 10 * place]
        labels[box] = label
        for number, share in enumerate(shares):
            probabilities[number][box] = share
    return join(parts_of(labels, probabilities, IS_THING), FAMILY)


def areas(parts: Parts) -> NDArray[np.float32]:
    return parts.areas[1:][parts.areas[1:] > 0]


def test_parts_of_one_thing_that_the_net_half_knows_are_joined() -> None:
    parts = seen((CAT, (0.5, 0.4, 0.0)), (DOG, (0.4, 0.5, 0.0)))
    assert areas(parts).tolist() == [200]
    number = int(parts.areas[1:].argmax()) + 1
    assert parts.classes[number].tolist() == pytest.approx([0.45, 0.45, 0.0])
    assert (parts.numbers == number).sum() == 200


def test_two_things_of_which_the_net_is_sure_stay_two() -> None:
    assert areas(seen((CAT, (0.9, 0.1, 0.0)), (DOG, (0.1, 0.9, 0.0)))).tolist() == [100, 100]


def test_what_is_unlike_stays_apart_though_doubtful() -> None:
    assert areas(seen((CAT, (0.5, 0.0, 0.0)), (BOAT, (0.0, 0.0, 0.5)))).tolist() == [100, 100]


def test_a_doubtful_part_joins_a_sure_one_of_its_family_only() -> None:
    assert areas(seen((CAT, (0.9, 0.1, 0.0)), (DOG, (0.3, 0.5, 0.0)))).tolist() == [200]
    assert areas(seen((BOAT, (0.1, 0.0, 0.9)), (CAT, (0.5, 0.0, 0.4)))).tolist() == [100, 100]


def test_doubtful_parts_of_two_families_are_joined_where_they_are_alike() -> None:
    assert areas(seen((BOAT, (0.4, 0.0, 0.5)), (CAT, (0.5, 0.0, 0.4)))).tolist() == [200]


def test_what_does_not_touch_is_not_joined() -> None:
    assert areas(seen((CAT, (0.5, 0.4, 0.0)), (GRASS, (0.0, 0.0, 0.0)), (DOG, (0.4, 0.5, 0.0)))).tolist() == [100, 100]


def test_specks_of_noise_are_no_parts() -> None:
    labels = np.full((40, 40), GRASS, np.uint8)
    labels[::4, ::4], labels[10:20, 10:20] = BOAT, CAT
    probabilities = np.full((3, 20, 20), 0.3, np.float32)
    assert len(parts_of(labels, probabilities, IS_THING).areas) == 1 + 1 + 96
    parts = parts_of(labels, probabilities, IS_THING, smallest=4)
    assert parts.areas.tolist() == [1500, 100]
    assert parts.classes[1].tolist() == pytest.approx([0.3] * 3)


def test_no_thing_no_parts() -> None:
    assert areas(seen((GRASS, (0.0, 0.0, 0.0)))).tolist() == []
