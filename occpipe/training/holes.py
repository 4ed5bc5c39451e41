"""Holes to train and to measure inpainters with: the outlines of things, brush strokes and boxes; and cut-out things."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from occpipe.core.types import Image, Mask
from occpipe.training.segmentation_data import THINGS, is_held_out

_LEAST_SIDE = 24
_LEAST_FILL = 0.3  # of its box; less is a net or a frame, or a thing behind others


@dataclass(frozen=True, slots=True)
class Cutout:
    """One thing of a photo: its class, its pixels, h x w x 3, and its outline, h x w in {0, 1}, at the size of its box."""

    label: str
    image: Image
    mask: Mask


def read_cutouts(folder: Path, *, held_out: bool | None, limit: int | None = None) -> list[Cutout]:
    """Whole things of a labelled photo folder (`docs/segmenters.md`), one per class and photo, clear of its border.

    `held_out` takes those that the starters are not trained on (True), the others (False) or all (None).
    """
    names = json.loads((folder / "label_space.json").read_text())["classes"]
    rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    found: list[Cutout] = []
    for row in rows:
        name = row["name"]
        if held_out is not None and is_held_out(name) != held_out:
            continue
        label = np.asarray(Pil.open(folder / "labels" / f"{name}.png"))
        outlines = {int(k): _whole_thing(label == k) for k in np.unique(label) if k < THINGS}
        if not any(outline is not None for outline in outlines.values()):
            continue
        with Pil.open(folder / "images" / f"{name}.jpg") as photo:
            image = np.asarray(photo.convert("RGB"))
        for k, mask in outlines.items():
            if mask is None:
                continue
            x, y, w, h = cv2.boundingRect(mask)
            box = np.s_[y : y + h, x : x + w]
            found.append(Cutout(names[k], image[box].copy(), mask[box].copy()))
        if limit is not None and len(found) >= limit:
            break
    return found


def _whole_thing(inside: NDArray[np.bool_]) -> Mask | None:
    """The largest component of a class, closed; None where it is small, ragged or cut off by the border."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    number = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    x, y, w, h, area = stats[number]
    if min(w, h) < _LEAST_SIDE or area < _LEAST_FILL * w * h:
        return None
    if x == 0 or y == 0 or x + w == inside.shape[1] or y + h == inside.shape[0]:
        return None
    mask = (parts == number).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)), np.uint8)


def thing_hole(rng: np.random.Generator, shape: tuple[int, int], area: float, outlines: Sequence[Mask] = ()) -> Mask:
    """A hole in the shape of a thing, `area` its share of the image, H x W; made up of ellipses without `outlines`."""
    height, width = shape
    outline = outlines[int(rng.integers(len(outlines)))] if len(outlines) else _made_up(rng)
    if rng.random() < 0.5:
        outline = outline[:, ::-1]
    h, w = outline.shape
    scale = (area * height * width / max(1, int(outline.sum()))) ** 0.5
    scale = min(scale, 0.8 * height / h, 0.8 * width / w)
    size = max(3, round(w * scale)), max(3, round(h * scale))
    thing = cv2.resize(np.ascontiguousarray(outline), size, interpolation=cv2.INTER_LINEAR)
    mask: Mask = np.zeros(shape, np.uint8)
    y, x = rng.integers(height - size[1] + 1), rng.integers(width - size[0] + 1)
    mask[y : y + size[1], x : x + size[0]] = thing > 0
    return mask


def brush_hole(rng: np.random.Generator, shape: tuple[int, int], area: float) -> Mask:
    """A stroke that wanders over the image until it covers `area` of it, H x W."""
    mask: Mask = np.zeros(shape, np.uint8)
    side = min(shape)
    width = max(3, round(side * rng.uniform(0.06, 0.16)))
    point, angle = rng.uniform(0.2, 0.8, 2) * shape[::-1], rng.uniform(0, 2 * np.pi)
    for _ in range(40):
        angle += rng.uniform(-1, 1)
        step = side * rng.uniform(0.08, 0.2) * np.array([np.cos(angle), np.sin(angle)])
        goal = np.clip(point + step, 0, np.array(shape[::-1]) - 1)
        cv2.line(mask, tuple(map(int, point)), tuple(map(int, goal)), 1, width)
        point = goal
        if mask.mean() >= area:
            break
    return mask


def box_hole(rng: np.random.Generator, shape: tuple[int, int], area: float) -> Mask:
    """A rectangle of `area` of the image, H x W."""
    height, width = shape
    ratio = np.exp(rng.uniform(-0.7, 0.7))
    h = min(0.8 * height, (area * height * width * ratio) ** 0.5)
    w = min(0.8 * width, area * height * width / h)
    y, x = rng.uniform(0, height - h), rng.uniform(0, width - w)
    mask: Mask = np.zeros(shape, np.uint8)
    mask[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1] = 1
    return mask


def _made_up(rng: np.random.Generator) -> Mask:
    """A body of overlapping ellipses with a limb or two."""
    canvas: Mask = np.zeros((160, 160), np.uint8)
    at = np.array([80.0, 80.0])
    for part in range(int(rng.integers(3, 7))):
        axes = rng.uniform(14, 34, 2) if part < 2 else rng.uniform(6, 26, 2)
        cv2.ellipse(canvas, tuple(map(int, at)), tuple(map(int, axes)), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        at = np.clip(at + rng.uniform(-26, 26, 2), 40, 120)
    x, y, w, h = cv2.boundingRect(canvas)
    return canvas[y : y + h, x : x + w]
