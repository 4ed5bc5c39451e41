"""The terms of the pipeline: segments, verdicts and their closed sets of reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from occpipe.core.masks import Rle, rescale_rle, rle_decode

Image: TypeAlias = NDArray[np.uint8]
"""RGB uint8, H x W x 3."""

Mask: TypeAlias = NDArray[np.uint8]
"""uint8, H x W, in {0, 1}; 1 = part of the thing, or to be removed."""


class Status(StrEnum):
    """The result for an input image."""

    CLEANED = "cleaned"
    UNCHANGED = "unchanged"
    SCANNED = "scanned"  # something would be removed; a scan removes nothing
    SKIPPED = "skipped"
    ERROR = "error"


class Verdict(StrEnum):
    """The decision on a thing."""

    KEEP = "keep"
    REMOVE = "remove"


class Reason(StrEnum):
    """Why a thing is kept or removed."""

    UNRELATED = "unrelated"
    RELATED = "related"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    KEPT_BY_POLICY = "kept_by_policy"
    REMOVED_BY_POLICY = "removed_by_policy"
    LOW_CONFIDENCE = "low_confidence"
    NO_CONTEXT = "no_context"
    KEPT_BY_REVIEW = "kept_by_review"
    REMOVED_BY_REVIEW = "removed_by_review"


class Box(NamedTuple):
    """An axis-aligned box in pixels: left, top, width, height (the COCO convention)."""

    x: int
    y: int
    width: int
    height: int


class ClassShare(NamedTuple):
    """A class that a segment may have, and its probability."""

    label: str
    probability: float


MAX_CLASSES = 5
"""The most probable classes of a segment that are kept; the others of a calibrated net add up to a few percent."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a panoptic segmentation: an instance of a thing, or a stuff region.

    `score` is the segmenter's confidence in `label`, in [0, 1]; `area` and `bbox` are in pixels of the mask `rle`.
    `classes` are the most probable classes, the first of them `label`; their sum is at most `thing`, the chance that this
    is a thing at all. A segmenter that gives one name gives one class.
    """

    label: str
    is_thing: bool
    score: float
    area: int
    bbox: Box
    rle: Rle
    classes: tuple[ClassShare, ...] = ()
    thing: float = 1.0

    @classmethod
    def from_mask(
        cls,
        label: str,
        is_thing: bool,
        score: float,
        mask: Mask,
        classes: Sequence[ClassShare] = (),
        thing: float = 0.0,
    ) -> Segment:
        """A segment from a mask, H x W in {0, 1}; area and box are computed from it."""
        return cls.from_rle(label, is_thing, float(score), Rle.encode(mask), classes, thing)

    @classmethod
    def from_rle(
        cls, label: str, is_thing: bool, score: float, rle: Rle, classes: Sequence[ClassShare] = (), thing: float = 0.0
    ) -> Segment:
        """A segment from a run-length coded mask; without `classes` its label is the only one."""
        best = tuple(classes)[:MAX_CLASSES] or (ClassShare(label, score),)
        return cls(label, is_thing, score, rle.area, Box(*rle.bbox), rle, best, max(thing, score))

    @property
    def mask(self) -> Mask:
        """The mask, uint8 H x W in {0, 1}."""
        return rle_decode(self.rle)

    def at(self, height: int, width: int) -> tuple[int, Box]:
        """Area and box in pixels of an image that is larger than the mask; the mask is not decoded."""
        down, right = height / self.rle.height, width / self.rle.width
        left, top = round(self.bbox.x * right), round(self.bbox.y * down)
        end = round((self.bbox.x + self.bbox.width) * right), round((self.bbox.y + self.bbox.height) * down)
        return round(self.area * down * right), Box(left, top, end[0] - left, end[1] - top)

    def resized(self, height: int, width: int) -> Segment:
        """The same segment on an image of another size."""
        rle = rescale_rle(self.rle, height, width)
        return self.from_rle(self.label, self.is_thing, self.score, rle, self.classes, self.thing)


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The things and stuff in one image of `height` x `width` pixels.

    `stuff` maps each stuff class of the image to a confidence in [0, 1], from segments or from an image-level tagger.
    """

    height: int
    width: int
    segments: tuple[Segment, ...] = ()
    stuff: dict[str, float] = field(default_factory=dict)

    @property
    def things(self) -> tuple[Segment, ...]:
        """The segments that are things."""
        return tuple(s for s in self.segments if s.is_thing)

    def resized(self, height: int, width: int) -> Segmentation:
        """The same segmentation on the image at another size; segments that vanish are dropped."""
        if (height, width) == (self.height, self.width):
            return self
        segments = tuple(s.resized(height, width) for s in self.segments)
        return Segmentation(height, width, tuple(s for s in segments if s.area), dict(self.stuff))


@dataclass(frozen=True, slots=True)
class Evidence:
    """The relation of one context class to a thing, in [0, 1], higher = belongs."""

    context: str
    relation: float


@dataclass(frozen=True, slots=True)
class Relation:
    """The relation score of a thing to its context, with the context classes from nearest to farthest.

    `score` is None if no context class could be scored.
    """

    score: float | None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A thing with its verdict and reason.

    `relation` is the probability that it belongs: calibrated with how surely it was seen, where there is a calibration for
    the segmenter, and else the one that is expected over the classes that it may have.
    """

    segment: Segment
    relation: float | None
    verdict: Verdict
    reason: Reason
    evidence: tuple[Evidence, ...] = ()

    @property
    def label(self) -> str:
        """The class name of the thing."""
        return self.segment.label


@dataclass(frozen=True, slots=True)
class CleanResult:
    """A cleaned image, H x W x 3; the mask of the filled pixels, H x W; its objects and stuff."""

    image: Image
    mask: Mask
    objects: tuple[SceneObject, ...]
    stuff: dict[str, float]
