"""Binary masks: run-length coding (COCO's compressed form, by pycocotools), growth, grouping and clean-up.

A 12 MP mask takes 12 MB as uint8 and a few kB as RLE, so stages pass masks on as RLE only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

# A thing that covers more than this share of the edge of a hole surrounds the hole.
_AROUND = 0.7
_SMOOTHING = 1.0  # pixels of the small mask; with less, steps are visible; with more, thin things lose their shape


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask of `height` x `width` in COCO's compressed run-length coding."""

    height: int
    width: int
    counts: bytes

    @classmethod
    def encode(cls, mask: NDArray[np.uint8]) -> Rle:
        """Encode a mask, H x W in {0, 1}."""
        height, width = mask.shape
        return cls(height, width, coco_mask.encode(np.asfortranarray(mask))["counts"])

    def check(self) -> None:
        """Raise ValueError if the counts are not the run lengths of such a mask; for masks from untrusted files.

        pycocotools does not check its input: with too few runs, the other pixels are uninitialized memory. Each character
        has 5 bits of a number and a bit that says whether more follow. From the fourth number on, each is a difference to
        the last but one.
        """
        codes = np.frombuffer(self.counts, np.uint8).astype(np.int64) - 48
        if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
            raise ValueError("a mask that is not a run-length code")
        ends = np.flatnonzero(codes & 32 == 0)
        starts = np.concatenate([[0], ends[:-1] + 1])
        if (ends - starts).max() > 6:  # 35 bits, more pixels than an image can have
            raise ValueError("a mask with a run that is too long")
        place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
        runs = np.add.reduceat((codes & 31) << 5 * place, starts)
        runs -= np.where(codes[ends] & 16, np.int64(32) << 5 * place[ends], 0)
        runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
        if runs.min() < 0 or runs.max() > self.height * self.width or runs.sum() != self.height * self.width:
            raise ValueError(f"a mask that does not have {self.height} x {self.width} pixels")

    @property
    def coco(self) -> dict[str, object]:
        """The dict of pycocotools."""
        return {"size": [self.height, self.width], "counts": self.counts}

    @property
    def area(self) -> int:
        """Number of pixels that are 1."""
        return int(coco_mask.area(self.coco))

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """Left, top, width, height in pixels; zeros for an empty mask."""
        x, y, w, h = (int(v) for v in coco_mask.toBbox(self.coco))
        return x, y, w, h


def rle_decode(rle: Rle) -> NDArray[np.uint8]:
    """The mask, uint8 H x W in {0, 1}."""
    return np.ascontiguousarray(coco_mask.decode(rle.coco))


def union(rles: Iterable[Rle]) -> Rle | None:
    """The union of masks of one size; None for no masks."""
    items = [r.coco for r in rles]
    if not items:
        return None
    merged = coco_mask.merge(items)
    return Rle(merged["size"][0], merged["size"][1], merged["counts"])


def union_mask(rles: Iterable[Rle], height: int, width: int) -> NDArray[np.uint8]:
    """The pixels of a union of masks, uint8 H x W in {0, 1}; zeros for no masks."""
    merged = union(rles)
    return np.zeros((height, width), np.uint8) if merged is None else rle_decode(merged)


def beside(hole: NDArray[np.uint8], things: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The things that are beside the holes, without those around one: a hole in a shirt is filled with shirt.

    Masks are H x W in {0, 1}.
    """
    things = things & (1 - hole)
    if not things.any():
        return things
    count, parts = cv2.connectedComponents(things, connectivity=8)
    _, holes = cv2.connectedComponents(hole, connectivity=8)
    # each pixel just outside a hole, with the number of that hole (dilation takes the larger number of two)
    touching = cv2.dilate(holes.astype(np.float32), np.ones((5, 5), np.uint8)).astype(np.int64)
    ring = (hole == 0) & (touching > 0)
    shares = np.bincount(touching[ring] * count + parts[ring], minlength=(int(holes.max()) + 1) * count).reshape(
        -1, count
    )
    around = (shares > _AROUND * shares.sum(1, keepdims=True)).any(0)
    around[0] = True  # the background
    return np.asarray(~around[parts], np.uint8)


def distances(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far each pixel of a mask, H x W, is from the nearest 0, in pixels; 0 where the mask is 0.

    Equal masks give equal bits. The last bit of OpenCV's result differs from call to call, by where its buffer lies. The
    squares are whole numbers, so they are rounded.
    """
    squares = np.rint(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64) ** 2)
    return np.sqrt(squares).astype(np.float32)


def resize_mask(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A mask at another size, its edge smoothed by bilinear interpolation."""
    if mask.shape == (height, width):
        return mask
    soft = cv2.resize(mask * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
    return (soft > 127).astype(np.uint8)


def scale_up(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A mask, H x W in {0, 1}, at the larger size of its image; a mask of that size is returned unchanged.

    It is smoothed before it is enlarged, because bilinear interpolation alone shows each pixel of the mask as a step. The
    threshold keeps the share of the image that the mask had, so that small and thin things do not shrink. 15 ms at 12 MP.
    """
    if mask.shape == (height, width):
        return mask
    soft = cv2.GaussianBlur(mask * np.uint8(255), (0, 0), _SMOOTHING)
    soft = cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC)
    counts = cv2.calcHist([soft], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    above = counts[::-1].cumsum()[::-1]  # pixels of at least each value
    threshold = int(np.abs(above - float(mask.mean()) * height * width)[1:].argmin()) + 1
    return np.asarray(cv2.threshold(soft, threshold - 1, 1, cv2.THRESH_BINARY)[1], np.uint8)


def scale_down(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A mask, H x W in {0, 1}, at a smaller size: the pixels that it covers by at least half."""
    if mask.shape == (height, width):
        return mask
    soft = cv2.resize(mask * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(soft > 127, np.uint8)


def rescale(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A mask, H x W in {0, 1}, at another size, larger or smaller."""
    return scale_up(mask, height, width) if height > mask.shape[0] else scale_down(mask, height, width)


def rescale_rle(rle: Rle, height: int, width: int) -> Rle:
    """A run-length coded mask at another size."""
    if (rle.height, rle.width) == (height, width):
        return rle
    return Rle.encode(rescale(rle_decode(rle), height, width))


def regions(mask: NDArray[np.uint8], smallest: int, *, split: bool) -> list[NDArray[np.uint8]]:
    """The parts of a class mask, H x W in {0, 1}, without specks and holes of fewer than `smallest` pixels.

    With `split` each connected component (8 neighbours) is a part, else all of them are one.
    """
    left, top, width, height = cv2.boundingRect(mask)
    # one more pixel on each side, if the image has it: a region that touches this ring is outside, and not a hole
    box = np.s_[max(0, top - 1) : top + height + 1, max(0, left - 1) : left + width + 1]
    part = _without_specks(mask[box], smallest)
    sides = (top > 0, left > 0, top + height < mask.shape[0], left + width < mask.shape[1])
    # a hole smaller than a speck can contain dropped specks only, so that filling it overlaps no other segment
    mask = np.zeros_like(mask)
    mask[box] = _without_holes(part, smallest, sides)
    if not mask.any():
        return []
    if not split:
        return [mask]
    count, parts = cv2.connectedComponents(mask, connectivity=8)
    return [(parts == i).astype(np.uint8) for i in range(1, count)]


def _without_specks(mask: NDArray[np.uint8], smallest: int) -> NDArray[np.uint8]:
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    if keep[1:].all():
        return mask
    keep[0] = False
    kept: NDArray[np.uint8] = keep[parts].astype(np.uint8)
    return kept


def _without_holes(mask: NDArray[np.uint8], smallest: int, outside: Sequence[bool]) -> NDArray[np.uint8]:
    """Fill the holes. A region at a side (top, left, bottom, right) beyond which the image continues is not a hole."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    hole = stats[:, cv2.CC_STAT_AREA] < smallest
    for is_open, side in zip(outside, (parts[0], parts[:, 0], parts[-1], parts[:, -1]), strict=True):
        if is_open:
            hole[side] = False
    if not hole[1:].any():
        return mask
    hole[0] = True  # the mask itself
    filled: NDArray[np.uint8] = hole[parts].astype(np.uint8)
    return filled
