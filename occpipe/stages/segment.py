"""segment: pixels to things and stuff, 1:1, in pool A. Bound by the network's forward pass.

Masks keep the size of the pixels, or that of a mask of the user's, and travel as run lengths. Of stuff only
the classes go on, with their confidences, because no later stage needs its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, TypeAlias

import numpy as np
import pyarrow as pa

from occpipe.core.config import Config
from occpipe.core.rows import SegmentRow, StuffRow
from occpipe.core.types import Image, Segment, Segmentation
from occpipe.models.loading import load_segmenter, set_threads
from occpipe.models.segmenters import LabelSource, Photo, Segmenter
from occpipe.stages.rows import Rows
from occpipe.stages.stage import PoolStage, Setup

_ByPhoto: TypeAlias = Callable[[Sequence[Photo]], list[Segmentation | Exception]]


def to_columns(scene: Segmentation) -> tuple[list[SegmentRow], list[StuffRow]]:
    """Things and stuff of a scene as the values of the columns `segments` and `stuff`."""
    segments = [segment_row(segment) for segment in scene.things]
    stuff: list[StuffRow] = [
        {"label": label, "confidence": confidence} for label, confidence in sorted(scene.stuff.items())
    ]
    return segments, stuff


def segment_row(segment: Segment) -> SegmentRow:
    """One thing as a struct of the `segments` column."""
    return {"label": segment.label, "score": segment.score, "mask": segment.rle.counts.decode("ascii")}


class SegmentStage(PoolStage):
    """Replaces `pixels` by `segments` and `stuff`; `model` takes `placement.segment.batch_size` photos at once."""

    READS = (
        *("uri", "width", "height", "pixels", "mask_width", "mask_height"),
        *("status", "reason", "error"),
    )
    WRITES = ("segments", "stuff", "mask_width", "mask_height", "status", "reason", "error")
    DROPS = ("pixels",)
    LOADS = ("segmenter",)

    def __init__(self, config: Config, segmenter: Segmenter | None = None) -> None:
        threads = set_threads(config.placement.segment.threads)
        self.model: _ByPhoto = _by_photo(segmenter or load_segmenter(config, workers=threads))
        self._batch_size = config.placement.segment.batch_size

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.config)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "segment")
        segments, stuff = rows.nulls(), rows.nulls()
        heights, widths = rows.column("mask_height"), rows.column("mask_width")
        waiting = rows.open()
        for start in range(0, len(waiting), self._batch_size):
            photos: dict[int, Photo] = {}
            for index in waiting[start : start + self._batch_size]:
                with rows.attempt(index):
                    photos[index] = _photo(rows, index)
            scenes = rows.together_or_alone(photos, lambda part: self.model([photos[i] for i in part]))  # noqa: B023
            for index, scene in scenes.items():
                with rows.attempt(index):
                    if isinstance(scene, Exception):
                        raise scene
                    segments[index], stuff[index] = to_columns(scene)
                    heights[index], widths[index] = scene.height, scene.width
        return rows.table(self.DROPS, segments=segments, stuff=stuff, mask_height=heights, mask_width=widths)


def _by_photo(segmenter: Segmenter) -> _ByPhoto:
    """A segmenter as a function of photos; the masks of a network get the size of the pixels."""
    if isinstance(segmenter, LabelSource):
        return segmenter.segment_named

    def segment(photos: Sequence[Photo]) -> list[Segmentation | Exception]:
        scenes = segmenter([photo.pixels for photo in photos])
        return [scene.resized(*photo.pixels.shape[:2]) for scene, photo in zip(scenes, photos, strict=True)]

    return segment


def _photo(rows: Rows, index: int) -> Photo:
    """The photo of a row. A copy, 0.3 ms: Arrow's memory is read-only, and torch takes only what is not."""
    data = rows.batch.column("pixels")[index].as_buffer()
    row = rows.row(index)
    pixels: Image = np.frombuffer(data, np.uint8).reshape(row["mask_height"], row["mask_width"], 3).copy()
    return Photo(row["uri"], row["height"], row["width"], pixels)
