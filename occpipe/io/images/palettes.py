"""A picture in the palette of its source: pixels that did not change keep their number, others get the nearest colour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil

MAX_ERROR = 24.0
"""Levels by which a fill may be off in the mean, as a photo in 16 colours is; a palette that is coarser is given up."""


def like_palette(
    picture: Pil.Image, original: Pil.Image, colours: npt.NDArray[np.uint8], alphas: npt.NDArray[np.uint8]
) -> Pil.Image | None:
    """The picture, RGB, as numbers of `colours`, N x 3, of which each has an opacity. A pixel keeps its opacity.

    None where these colours are too few for what was filled in: it would stay as it was, or be a blot. `original` is of
    mode P. A number beyond the palette, which only a broken file has, stays.
    """
    numbers = np.array(original, np.uint8)
    full = np.zeros((256, 4), np.uint8)
    full[: len(colours), :3], full[: len(colours), 3] = colours, alphas
    before, wanted = full[numbers], np.asarray(picture, np.uint8)
    changed = (wanted != before[..., :3]).any(axis=-1) & (numbers.astype(np.int32) < len(colours))
    for alpha in np.unique(before[..., 3][changed]):
        choice = np.flatnonzero(alphas == alpha)
        here = changed & (before[..., 3] == alpha)
        table = Pil.new("P", (1, 1))
        table.putpalette(np.resize(colours[choice], (256, 3)).tobytes())
        row = Pil.fromarray(wanted[here].reshape(1, -1, 3)).quantize(palette=table, dither=Pil.Dither.NONE)
        numbers[here] = choice[np.asarray(row, np.int32)[0] % len(choice)]
    if changed.any() and np.abs(full[numbers[changed], :3].astype(np.int32) - wanted[changed]).mean() > MAX_ERROR:
        return None
    made = Pil.fromarray(numbers)
    made.putpalette(full[:, :3].tobytes())
    return made


def like_palette_of(picture: Pil.Image, original: Pil.Image) -> Pil.Image | None:
    """The same with the palette that Pillow read, all of it opaque."""
    colours = np.frombuffer(bytes(original.getpalette("RGB") or ()), np.uint8).reshape(-1, 3)
    return like_palette(picture, original, colours, np.full(len(colours), 255, np.uint8))
