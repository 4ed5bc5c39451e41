"""A picture in the palette of its source: unchanged pixels keep their number, others get the nearest colour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil

MAX_ERROR = 24.0
"""Mean error in levels that a fill may have, about that of a photo in 16 colours; above it the palette is given up."""


def like_palette(
    picture: Pil.Image, original: Pil.Image, colours: npt.NDArray[np.uint8], alphas: npt.NDArray[np.uint8]
) -> Pil.Image | None:
    """The picture, RGB, as numbers of `colours`, N x 3, with an opacity each. A pixel keeps its opacity.

    None if these colours are too few for the filled pixels, which would stay unchanged or become a blot. `original` has
    mode P. A number beyond the palette, which only a broken file has, stays.
    """
    numbers = np.array(original, np.uint8)
    full = np.zeros((256, 4), np.uint8)
    full[: len(colours), :3], full[: len(colours), 3] = colours, alphas
    before, target = full[numbers], np.asarray(picture, np.uint8)
    changed = (target != before[..., :3]).any(axis=-1) & (numbers.astype(np.int32) < len(colours))
    for alpha in np.unique(before[..., 3][changed]):
        choice = np.flatnonzero(alphas == alpha)
        here = changed & (before[..., 3] == alpha)
        table = Pil.new("P", (1, 1))
        table.putpalette(np.resize(colours[choice], (256, 3)).tobytes())
        row = Pil.fromarray(target[here].reshape(1, -1, 3)).quantize(palette=table, dither=Pil.Dither.NONE)
        numbers[here] = choice[np.asarray(row, np.int32)[0] % len(choice)]
    if changed.any() and np.abs(full[numbers[changed], :3].astype(np.int32) - target[changed]).mean() > MAX_ERROR:
        return None
    indexed = Pil.fromarray(numbers)
    indexed.putpalette(full[:, :3].tobytes())
    return indexed


def like_palette_of(picture: Pil.Image, original: Pil.Image) -> Pil.Image | None:
    """The same with the palette that Pillow read, all of it opaque."""
    colours = np.frombuffer(bytes(original.getpalette("RGB") or ()), np.uint8).reshape(-1, 3)
    return like_palette(picture, original, colours, np.full(len(colours), 255, np.uint8))
