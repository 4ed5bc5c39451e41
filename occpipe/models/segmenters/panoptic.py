"""Panoptic merging on the device: class and mask logits of a batch become label maps and small tables of segments.

One implementation for EoMT, Mask2Former and OneFormer, with the segments of the processors of transformers. Those scale
the masks of all queries to the size of the photo. Here only queries above the threshold are scaled, a few at a time and to
the size of the output. No tensor of all scaled logits exists. One copy goes to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from occpipe.core.types import MAX_CLASSES

CHUNK_ELEMENTS = 16_000_000
"""Elements of one tensor of scaled masks, 64 MB; at most five such tensors exist."""
NO_SEGMENT = -1


@dataclass(frozen=True)
class MergeRule:
    """The rule by which queries become segments.

    A query counts if its class has a probability above `threshold`. A pixel belongs to the query with the highest product
    of class and mask probability. A query is a segment if it keeps more than `overlap` of the pixels whose mask probability
    reaches `mask_threshold`. Segments of one class of `stuff` are one segment.

    The families differ. EoMT scales logits, and its segments have no pixel below the mask threshold. The other two scale
    probabilities and compare the threshold with the product; Mask2Former scales its logits to 384 x 384 before.
    """

    family: Literal["eomt", "mask2former", "oneformer"]
    stuff: frozenset[int] = field(default_factory=frozenset)
    threshold: float = 0.5
    mask_threshold: float = 0.5
    overlap: float = 0.8


class SegmentInfo(NamedTuple):
    """A segment: its number in the label map, its class, and the highest probability of that class among its queries."""

    number: int
    label: int
    score: float
    classes: tuple[tuple[int, float], ...] = ()
    """The most probable classes of that query with their probabilities."""


class Merged(NamedTuple):
    """The segments of one image; the label map, H x W, has their numbers, and `NO_SEGMENT` elsewhere."""

    label_map: NDArray[np.int16]
    segments: tuple[SegmentInfo, ...]


def merge(
    class_logits: Tensor,
    mask_logits: Tensor,
    rule: MergeRule,
    padded: tuple[int, int],
    contents: Sequence[tuple[int, int]],
    sizes: Sequence[tuple[int, int]],
) -> list[Merged]:
    """The segments of each image of a batch, at its size.

    Args:
        class_logits: B x Q x (C + 1); the last class is "nothing".
        mask_logits: B x Q x h x w, of the padded input.
        rule: The rule by which queries become segments.
        padded: Height and width of the input.
        contents: Height and width of each image within the input, without the padding below it and to its right.
        sizes: Height and width of each label map.
    """
    probabilities = class_logits.float().softmax(-1)
    scores, labels = probabilities.max(-1)
    best = probabilities[..., :-1].topk(min(MAX_CLASSES, class_logits.shape[-1] - 1))
    counts = (scores > rule.threshold) & (labels != class_logits.shape[-1] - 1)
    order = torch.argsort(~counts, dim=1, stable=True)  # queries that count come first, in their order
    scores, labels = scores.gather(1, order), labels.gather(1, order)
    shares, classes = (part.gather(1, order[..., None].expand_as(part)) for part in best)
    kept = counts.sum(1).tolist()  # waits for the device, as the copy at the end does
    height, width = (max(side) for side in zip(*sizes, strict=True))
    maps = torch.full((len(kept), height, width), NO_SEGMENT, dtype=torch.int16, device=mask_logits.device)
    numbers = torch.full_like(labels, NO_SEGMENT)
    stuff = torch.tensor(sorted(rule.stuff), device=labels.device)
    for i, count in enumerate(kept):
        if count:
            h, w = sizes[i]
            masks = mask_logits[i].index_select(0, order[i, :count])
            winner, is_segment = _winners(masks, scores[i, :count], rule, padded, contents[i], sizes[i])
            numbers[i, :count] = _numbers(labels[i, :count], is_segment, torch.isin(labels[i, :count], stuff))
            maps[i, :h, :w] = torch.where(winner >= 0, numbers[i][winner.clamp(min=0)], NO_SEGMENT)
    return _to_host(maps, numbers, labels, scores, torch.cat([classes.double(), shares.double()], -1), sizes)


def _winners(
    masks: Tensor,
    scores: Tensor,
    rule: MergeRule,
    padded: tuple[int, int],
    content: tuple[int, int],
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """The query of each pixel, H x W, `NO_SEGMENT` for none; and which queries are segments. Masks are K x h x w."""
    weighted = rule.family != "eomt"
    best = torch.full(size, -1.0, device=masks.device)
    winner = torch.full(size, NO_SEGMENT, dtype=torch.long, device=masks.device)
    reached = []
    step = max(1, CHUNK_ELEMENTS // max(padded[0] * padded[1], size[0] * size[1]))
    clears = torch.zeros(size, dtype=torch.bool, device=masks.device)  # the winner's own mask reaches the threshold
    for start in range(0, len(masks), step):
        probabilities = _probabilities(masks[start : start + step], rule, padded, content, size)
        products = probabilities * scores[start : start + step, None, None]
        above = (products if weighted else probabilities) >= rule.mask_threshold
        reached.append(above.flatten(1).sum(1))
        value, index = products.max(0)
        better = value > best
        best = torch.where(better, value, best)
        winner = torch.where(better, index + start, winner)
        clears = torch.where(better, above.gather(0, index[None])[0], clears)
    areas = torch.bincount(winner.flatten(), minlength=len(masks))
    area = torch.cat(reached)
    share = (areas / area.clamp(min=1)).double()  # double as in transformers: 0.8 in single precision is above 0.8
    is_segment = (areas > 0) & (area > 0) & (share > rule.overlap)
    if not weighted:
        winner = torch.where(clears, winner, NO_SEGMENT)
        visible = torch.bincount(winner[clears].flatten(), minlength=len(masks))
        is_segment &= visible > 0
    return winner, is_segment


def _probabilities(
    masks: Tensor, rule: MergeRule, padded: tuple[int, int], content: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Mask probabilities, K x H x W, of logits, K x h x w; un-padding is cropping."""
    logits = masks[None].float()
    if rule.family == "eomt":
        return _scaled(_scaled(logits, padded)[..., : content[0], : content[1]], size).sigmoid_()[0]
    if rule.family == "mask2former":
        logits = _scaled(logits, (384, 384))
    return _scaled(logits.sigmoid(), size)[0]


def _scaled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _numbers(labels: Tensor, is_segment: Tensor, is_stuff: Tensor) -> Tensor:
    """The number of each query's segment: its own index, or that of the first segment of its class of stuff."""
    place = torch.arange(len(labels), device=labels.device)
    together = is_stuff[:, None] & is_stuff & (labels[:, None] == labels) & is_segment
    first = torch.where(together, place, len(labels)).min(1).values
    return torch.where(is_segment, torch.where(is_stuff, first, place), NO_SEGMENT)


def _to_host(
    maps: Tensor, numbers: Tensor, labels: Tensor, scores: Tensor, best: Tensor, sizes: Sequence[tuple[int, int]]
) -> list[Merged]:
    """`best` holds the most probable classes of each query, and after them their probabilities."""
    table = torch.cat([torch.stack([numbers.double(), labels.double(), scores.double()], -1), best], -1).cpu().numpy()
    label_maps = maps.cpu().numpy()
    merged = []
    for i, (height, width) in enumerate(sizes):
        segments: dict[int, SegmentInfo] = {}
        for number, label, score, *rest in table[i].tolist():
            before = segments.get(number)
            if number != NO_SEGMENT and (before is None or before.score < score):
                half = len(rest) // 2
                classes = tuple((int(c), round(p, 6)) for c, p in zip(rest[:half], rest[half:], strict=True))
                segments[number] = SegmentInfo(int(number), int(label), round(score, 6), classes)
        merged.append(Merged(label_maps[i, :height, :width], tuple(segments.values())))
    return merged
