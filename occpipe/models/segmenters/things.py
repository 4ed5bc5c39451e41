"""From probabilities per pixel to things: regions of "some thing", each with a distribution over classes.

What a net half knows it calls a dog here and a cat there. The parts are one thing all the same. So a doubtful part joins
another one that it touches: a doubtful one with a distribution like its own, or any one of its family (animals, vehicles).
A part of which the net is sure joins nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

DOUBTFUL = 0.6
"""Mean probability of its class below which a part may be a part of something else."""
ALIKE = 0.35
"""Bhattacharyya coefficient of two distributions from which doubtful parts are alike."""
MIN_BORDER = 0.1
"""Share of its outline that a part must have in common with the other."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of things: a map H x W of their numbers, 0 = no thing; areas N, distributions N x C (not of sum 1)."""

    numbers: NDArray[np.int32]
    areas: Floats
    classes: Floats


def parts_of(labels: NDArray[np.uint8], probabilities: Floats, is_thing: NDArray[np.bool_], smallest: int = 1) -> Parts:
    """Connected pixels of one thing class, 8 neighbours, at least `smallest` of them: noise has thousands of specks.

    Labels are H x W; probabilities C x h x w of the C thing classes, at any smaller size; `is_thing` by label.
    """
    numbers = np.zeros(labels.shape, np.int32)
    count = 0
    inside = is_thing[labels]
    for label in np.unique(labels[inside]).tolist():
        _, components, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=8)
        large = stats[:, cv2.CC_STAT_AREA] >= smallest
        large[0] = False
        numbers += np.where(large, count + np.cumsum(large), 0)[components].astype(np.int32)
        count += int(large.sum())
    return _measured(numbers, count, probabilities)


def _measured(numbers: NDArray[np.int32], count: int, probabilities: Floats) -> Parts:
    areas = np.bincount(numbers.ravel(), minlength=count + 1).astype(np.float32)
    size = probabilities.shape[1:]
    small = cv2.resize(numbers.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int64).ravel()
    inside = np.flatnonzero(small)
    inside = inside[np.argsort(small[inside], kind="stable")]
    present, starts = np.unique(small[inside], return_index=True)
    classes = np.zeros((count + 1, len(probabilities)), np.float32)
    if len(present):
        sums = np.add.reduceat(probabilities.reshape(len(probabilities), -1)[:, inside], starts, axis=1)
        classes[present] = (sums / np.diff(starts, append=len(inside))).T
    return Parts(numbers, areas, classes)


def join(parts: Parts, family: NDArray[np.int64]) -> Parts:
    """The parts after doubtful ones have joined what they touch, smallest first; `family` is a number for each class."""
    count = len(parts.areas)
    if count < 3:
        return parts
    borders = _borders(parts.numbers, count)
    areas, classes = parts.areas.copy(), parts.classes.copy()
    target = np.arange(count)
    outline = borders.sum(1) + _outer(parts.numbers, count)
    for number in np.argsort(areas, kind="stable").tolist():
        if number == 0 or areas[number] == 0:
            continue
        common = borders[number].copy()
        common[[0, number]] = 0
        near = np.flatnonzero(common >= max(1.0, MIN_BORDER * outline[number]))
        if not len(near):
            continue
        if classes[number].max() >= DOUBTFUL:
            continue
        likeness = np.array([_likeness(classes[number], classes[other]) for other in near])
        kin = family[classes[near].argmax(1)] == family[classes[number].argmax()]
        joins = kin | ((likeness >= ALIKE) & (classes[near].max(1) < DOUBTFUL))
        if not joins.any():
            continue
        best = int(near[np.argmax(np.where(joins, likeness * common[near], -1))])
        share = areas[number] / (areas[number] + areas[best])
        classes[best] = share * classes[number] + (1 - share) * classes[best]
        areas[best] += areas[number]
        borders[best] += borders[number]
        borders[:, best] += borders[:, number]
        borders[number], borders[:, number] = 0, 0
        outline[best] = outline[best] + outline[number] - 2 * common[best]
        areas[number] = 0
        target[target == number] = best
    return Parts(target[parts.numbers].astype(np.int32), areas, classes)


def _likeness(one: Floats, other: Floats) -> float:
    both = float(np.sqrt(one * other).sum())
    return both / max(1e-6, float(np.sqrt(one.sum() * other.sum())))


def _borders(numbers: NDArray[np.int32], count: int) -> Floats:
    """How many pixels each pair of parts has side by side, N x N."""
    table = np.zeros((count, count), np.float32)
    for one, other in ((numbers[:, 1:], numbers[:, :-1]), (numbers[1:], numbers[:-1])):
        differ = (one != other) & (one > 0) & (other > 0)
        np.add.at(table, (one[differ], other[differ]), 1)
    return table + table.T


def _outer(numbers: NDArray[np.int32], count: int) -> Floats:
    """How many pixels each part has beside what is no thing."""
    length = np.zeros(count, np.float32)
    for one, other in ((numbers[:, 1:], numbers[:, :-1]), (numbers[1:], numbers[:-1])):
        for inner, outer in ((one, other), (other, one)):
            length += np.bincount(inner[(outer == 0) & (inner > 0)], minlength=count)
    return length
