"""A picture in the palette of its source: pixels that did not change keep their number, others get the nearest colour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil


def like_palette(
    picture: Pil.Image, original: Pil.Image, colours: npt.NDArray[np.uint8], alphas: npt.NDArray[np.uint8]
) -> Pil.Image:
    """The picture, RGB, as numbers of `colours`, N x 3, of which each has an opacity. A pixel keeps its opacity.

    `original` is of mode P. A number beyond the palette, which only a broken file has, stays.
    """
    numbers = np.array(original, np.uint8)
    full = np.zeros((256, 4), np.uint8)
    full[: len(colours), :3], full[: len(colours), 3] = colours, alphas
    before = full[numbers]
    changed = (np.asarray(picture, np.uint8) != before[..., :3]).any(axis=-1) & (numbers < len(colours))
    for alpha in np.unique(before[..., 3][changed]):
        choice = np.flatnonzero(alphas == alpha)
        here = changed & (before[..., 3] == alpha)
        wanted = np.asarray(picture, np.uint8)[here]
        table = Pil.new("P", (1, 1))
        table.putpalette(np.resize(colours[choice], (256, 3)).tobytes())
        row = Pil.fromarray(wanted.reshape(1, -1, 3)).quantize(palette=table, dither=Pil.Dither.NONE)
        numbers[here] = choice[np.asarray(row, np.uint8)[0] % len(choice)]
    made = Pil.fromarray(numbers)
    made.putpalette(full[:, :3].tobytes())
    return made


def like_palette_of(picture: Pil.Image, original: Pil.Image) -> Pil.Image:
    """The picture in the palette that Pillow read, all of it opaque."""
    colours = np.frombuffer(bytes(original.getpalette("RGB") or ()), np.uint8).reshape(-1, 3)
    return like_palette(picture, original, colours, np.full(len(colours), 255, np.uint8))
