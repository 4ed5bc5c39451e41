"""The crop engine: any model fills any holes in images of any size, in real batches.

Holes are grown (an explicit step, `grow_mask`), grouped where they lie near, cut out with context, batched with crops of
the same size from all images, filled, and composited: no pixel outside the given mask changes, not by one bit.
A thing takes up a few percent of a photo, so a model sees a fraction of the pixels that full images would cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Semaphore
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from occpipe.core.masks import beside
from occpipe.core.types import Box, Image, Mask
from occpipe.models.inpainters.base import CropInpainter, ThingAware
from occpipe.models.inpainters.compose import paste

T = TypeVar("T")
R = TypeVar("R")

# Crops of this many pixels count as one in a batch; larger ones count as more, so that memory stays bounded.
_UNIT_PIXELS = 512 * 512
# A window's margin is never smaller than this, in pixels: a 10 px hole still needs something to copy from.
_MIN_MARGIN = 48
_CONTEXT = 0.21


def check_fill(image: Image, mask: Mask) -> None:
    """Raise ValueError with a clear reason where `mask` cannot be filled in `image`.

    Refused: another size, another type, values other than 0 and 1, and a mask that covers the whole image, since there
    is nothing left to fill from. The pipeline asks this per row, so that one such row does not fail its batch.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is RGB uint8 H x W x 3, not {image.dtype} {image.shape}")
    if mask.shape != image.shape[:2] or mask.dtype != np.uint8:
        raise ValueError(f"the mask of this image is uint8 {image.shape[:2]}, not {mask.dtype} {mask.shape}")
    if mask.size and mask.max() > 1:
        raise ValueError("a mask holds 0 and 1 only")
    if mask.size and mask.all():
        raise ValueError("the mask covers the whole image: nothing is left to fill from")


@dataclass(frozen=True, slots=True)
class Crop:
    """One window to fill: `hole` bounds the mask pixels it replaces, `window` adds their context, both in image pixels.

    `size` is (height, width) of the content as the model sees it, `padded` after symmetric padding at bottom and right.
    """

    index: int
    hole: Box
    window: Box
    size: tuple[int, int]
    padded: tuple[int, int]


class Inpainter:
    """Fills masks in images with a model that works on crops.

    `context` is the margin of a window around its hole as a share of the hole's longer side (at least 48 px), by
    default the model's own, or 0.21, which makes the window 1.4 times as long and twice as large as the hole. `match_seam`
    shifts the tone of a fill to meet the photo's. `batch_size` counts crops of 512 x 512. `bucket` rounds the sides of
    crops up, in pixels, so that more of them share a batch (only for models with a `multiple` above 1). `workers` batches
    are filled at the same time and share so many cores: on two cores two fills take 0.56 of the time of one after the
    other. The model itself takes `calls` of them at the same time, by default all; on a GPU 1, beside which others are cut
    and pasted.
    """

    def __init__(
        self,
        model: CropInpainter,
        *,
        context: float | None = None,
        match_seam: bool = True,
        batch_size: int = 8,
        bucket: int = 32,
        workers: int = 1,
        calls: int | None = None,
    ) -> None:
        self.model = model
        self.context = getattr(model, "context", _CONTEXT) if context is None else context
        self.match_seam = match_seam
        self.batch_size = batch_size
        self.workers = workers
        self._model_is_free = Semaphore(calls or workers)
        self._step = model.multiple if model.multiple == 1 else _round_up(bucket, model.multiple)

    def __call__(self, image: Image, mask: Mask, things: Mask | None = None) -> Image:
        """The image, H x W x 3, with the pixels of the mask, H x W, filled; an empty mask returns an equal image.

        `things`, H x W, is 1 where things are that stay, so that none of them is copied into the hole.
        """
        return self.fill_many([image], [mask], [things])[0]

    def fill_many(
        self, images: Sequence[Image], masks: Sequence[Mask], things: Sequence[Mask | None] | None = None
    ) -> list[Image]:
        """Fill several images of any sizes; their crops share batches. ValueError as in `check_fill`.

        No pixel under a mask is read: each is blanked before anything else looks at its image.
        """
        kept = things or [None] * len(images)
        buckets: dict[tuple[int, int], list[Crop]] = defaultdict(list)
        for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
            check_fill(image, mask)
            for crop in self.plan(mask, i):
                buckets[crop.padded].append(crop)
        known = [_blanked(image, mask) for image, mask in zip(images, masks, strict=True)]
        batches = list(self._batches(buckets))

        def fill(batch: list[Crop]) -> list[Image]:
            return self._fill(batch, known, masks, kept)

        windows: dict[int, list[tuple[Crop, Image]]] = defaultdict(list)
        for batch, filled in zip(batches, self._side_by_side(fill, batches), strict=True):
            for crop, window in zip(batch, filled, strict=True):
                windows[crop.index].append((crop, window))

        def paste_all(index: int) -> Image:
            result = known[index]
            for crop, window in windows[index]:
                self._paste(result, masks[index], crop, window)
            return result

        return list(self._side_by_side(paste_all, range(len(images))))

    def _batches(self, buckets: dict[tuple[int, int], list[Crop]]) -> Iterator[list[Crop]]:
        for (height, width), crops in sorted(buckets.items()):
            count = max(1, self.batch_size * _UNIT_PIXELS // max(height * width, _UNIT_PIXELS))
            yield from (crops[start : start + count] for start in range(0, len(crops), count))

    def _side_by_side(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """What a function gives for each item, by `workers` threads, each of which takes its share of the cores."""
        at_once = min(self.workers, len(items))
        if at_once <= 1:
            yield from map(function, items)
            return
        from torch import set_num_threads  # for a thread that is new to torch

        with ThreadPoolExecutor(at_once, initializer=set_num_threads, initargs=(self.workers // at_once,)) as pool:
            yield from pool.map(function, items)

    def _fill(
        self, batch: list[Crop], images: Sequence[Image], masks: Sequence[Mask], things: Sequence[Mask | None]
    ) -> list[Image]:
        """The windows of crops of one size, filled, at the size of the photo."""
        inputs = [_cut(images[c.index], masks[c.index], things[c.index], c) for c in batch]
        pixels, holes, barred = (np.stack(part) for part in zip(*inputs, strict=True))
        with self._model_is_free:
            if isinstance(self.model, ThingAware):
                made = self.model.fill_beside(pixels, holes, barred)
            else:
                made = self.model.fill(pixels, holes)
        # Known pixels are put back before a crop is scaled up, or what the model made of them would bleed in.
        filled = np.where(holes[..., None] == 1, made, pixels)
        return [
            self._full_size(images[c.index], masks[c.index], things[c.index], c, new, hole)
            for c, new, hole in zip(batch, filled, holes, strict=True)
        ]

    def plan(self, mask: Mask, index: int = 0) -> list[Crop]:
        """The crops that cover a mask, H x W; `index` is noted in each. Each mask pixel belongs to exactly one crop."""
        if not mask.any():
            return []
        height, width = mask.shape
        return [self._crop(index, hole, height, width) for hole in _group_holes(mask, self.context)]

    def _crop(self, index: int, hole: Box, height: int, width: int) -> Crop:
        model = self.model
        margin = _margin(hole, self.context)
        least = model.fixed_size or 0
        y0, y1 = _span(hole.y, hole.y + hole.height, margin, height, self._step, least)
        x0, x1 = _span(hole.x, hole.x + hole.width, margin, width, self._step, least)
        window = Box(x0, y0, x1 - x0, y1 - y0)
        limit = model.fixed_size or model.max_side // model.multiple * model.multiple
        scale = min(1.0, limit / max(window.height, window.width))
        size = (max(1, round(window.height * scale)), max(1, round(window.width * scale)))
        if model.fixed_size is not None:
            padded = (model.fixed_size, model.fixed_size)
        else:
            padded = (min(limit, _round_up(size[0], self._step)), min(limit, _round_up(size[1], self._step)))
        return Crop(index, hole, window, size, padded)

    def _full_size(
        self, image: Image, mask: Mask, things: Mask | None, crop: Crop, filled: NDArray[np.uint8], hole: Mask
    ) -> Image:
        """The pixels of a filled crop, without padding, at the size of its window and with the photo's detail."""
        w = crop.window
        filled, hole = (np.ascontiguousarray(part[: crop.size[0], : crop.size[1]]) for part in (filled, hole))
        if crop.size == (w.height, w.width):
            return filled
        from occpipe.models.inpainters.detail import restore_detail

        window = np.s_[w.y : w.y + w.height, w.x : w.x + w.width]
        barred = np.zeros_like(mask[window]) if things is None else beside(mask[window], things[window])
        return restore_detail(image[window], mask[window], filled, hole, barred)

    def _paste(self, result: Image, mask: Mask, crop: Crop, pixels: Image) -> None:
        """Set a filled window into `result`, in place, only where the crop's own hole is."""
        paste(result, pixels, crop.window, mask, crop.hole, match_seam=self.match_seam)


def _blanked(image: Image, mask: Mask) -> Image:
    """A copy of an image that is black under its mask."""
    return np.asarray(cv2.copyTo(np.zeros_like(image), mask, image.copy()), np.uint8)


def _margin(hole: Box, context: float) -> int:
    return max(_MIN_MARGIN, round(context * max(hole.width, hole.height)))


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _span(start: int, stop: int, margin: int, length: int, step: int, least: int) -> tuple[int, int]:
    """A window [start, stop) widened by `margin`, then to a multiple of `step` and to `least`, as the image allows.

    True context is better than mirrored context, so the window slides at the image's edge before it is padded.
    """
    wanted = min(length, max(least, _round_up(stop - start + 2 * margin, step)))
    first = min(max(0, (start + stop - wanted) // 2), length - wanted)
    return first, first + wanted


def _group_holes(mask: Mask, context: float) -> list[Box]:
    """Boxes of the mask's components, merged until no box enlarged by half its margin meets another so enlarged.

    Two holes as near as that would each lie in the middle of the other's context. Components are those of a small copy of
    the mask, and so are those of the boxes, so that a mask of thousands of specks costs no more than one of two.
    """
    height, width = mask.shape
    cell = max(1, max(height, width) // 512)
    size = -(-width // cell), -(-height // cell)
    padded = cv2.copyMakeBorder(mask, 0, size[1] * cell - height, 0, size[0] * cell - width, cv2.BORDER_CONSTANT)
    small = cv2.resize(padded.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    _, _, stats, _ = cv2.connectedComponentsWithStats(small.astype(np.uint8), connectivity=8)
    holes = []
    for x, y, w, h, _ in (stats[1:] * cell).tolist():
        inner = cv2.boundingRect(mask[y : y + h, x : x + w])
        holes.append(Box(x + inner[0], y + inner[1], inner[2], inner[3]))
    while len(holes) > 1:
        canvas = np.zeros((height // cell + 1, width // cell + 1), np.uint8)
        for hole in holes:
            half = _margin(hole, context) // 2
            x0, y0 = max(0, hole.x - half) // cell, max(0, hole.y - half) // cell
            x1, y1 = (hole.x + hole.width + half) // cell, (hole.y + hole.height + half) // cell
            canvas[y0 : y1 + 1, x0 : x1 + 1] = 1
        _, labels = cv2.connectedComponents(canvas, connectivity=8)
        groups: dict[int, list[Box]] = defaultdict(list)
        for hole in holes:
            groups[int(labels[hole.y // cell, hole.x // cell])].append(hole)
        merged = [_bound(group) for group in groups.values()]
        if len(merged) == len(holes):
            break
        holes = merged
    return holes


def _bound(boxes: Sequence[Box]) -> Box:
    x0, y0 = min(b.x for b in boxes), min(b.y for b in boxes)
    x1, y1 = max(b.x + b.width for b in boxes), max(b.y + b.height for b in boxes)
    return Box(x0, y0, x1 - x0, y1 - y0)


def _cut(image: Image, mask: Mask, things: Mask | None, crop: Crop) -> tuple[Image, Mask, Mask]:
    """Pixels, hole and things of a crop as the model takes them. All mask pixels in the window are hole, its own or not."""
    w = crop.window
    window = np.s_[w.y : w.y + w.height, w.x : w.x + w.width]
    pixels, hole = image[window], mask[window]
    thing = np.zeros_like(hole) if things is None else beside(hole, things[window])
    height, width = crop.size
    if (height, width) != hole.shape:
        # Pixels under the mask are blank, so a pixel that is a hole in part is the mean of the rest. It is a hole all the
        # same; only where every pixel is one in part, those with the least of it must serve as known.
        share = cv2.resize(hole.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        small = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.float32)
        if share.min() > 0:
            small = np.rint(small / np.maximum(1 - share, 1e-3)[..., None]).clip(0, 255)
        pixels, hole = small.astype(np.uint8), (share > share.min()).astype(np.uint8)
        if not hole.any():  # all have the same share
            hole[:] = 1
            hole[0, 0] = 0
        thing = (cv2.resize(thing, (width, height), interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    pad = ((0, crop.padded[0] - height), (0, crop.padded[1] - width))
    padded = np.pad(pixels, (*pad, (0, 0)), mode="symmetric")
    return padded, np.pad(hole, pad, mode="symmetric"), np.pad(thing, pad, mode="symmetric")
