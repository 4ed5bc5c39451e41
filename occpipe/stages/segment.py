"""segment: pixels to things and stuff, 1:1, in pool A. Bound by the network's forward pass.

Masks keep the size of the pixels, and travel as run lengths. Of stuff only the classes go on, with their confidences,
because no later stage needs its place.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import pyarrow as pa

from occpipe.core.config import Config
from occpipe.core.rows import SegmentRow, StuffRow
from occpipe.core.types import Image, Segment, Segmentation
from occpipe.models.loading import load_segmenter, set_threads
from occpipe.models.segmenters import Segmenter
from occpipe.stages.rows import Rows
from occpipe.stages.stage import PoolStage, Setup


def to_columns(scene: Segmentation) -> tuple[list[SegmentRow], list[StuffRow]]:
    """Things and stuff of a scene as the values of the columns `segments` and `stuff`."""
    segments = [segment_row(segment) for segment in scene.things]
    stuff: list[StuffRow] = [
        {"label": label, "confidence": confidence} for label, confidence in sorted(scene.stuff.items())
    ]
    return segments, stuff


def segment_row(segment: Segment) -> SegmentRow:
    """One thing as a struct of the `segments` column."""
    return {
        "label": segment.label,
        "score": segment.score,
        "thing": segment.thing,
        "classes": [{"label": share.label, "probability": share.probability} for share in segment.classes],
        "mask": segment.rle.counts.decode("ascii"),
    }


class SegmentStage(PoolStage):
    """Replaces `pixels` by `segments` and `stuff`; `model` takes `placement.segment.batch_size` images at once."""

    READS = ("pixels", "mask_width", "mask_height", "status", "reason", "error")
    WRITES = ("segments", "stuff", "status", "reason", "error")
    DROPS = ("pixels",)
    LOADS = ("segmenter",)

    def __init__(self, config: Config, segmenter: Segmenter | None = None) -> None:
        threads = set_threads(config.placement.segment.threads)
        self.model: Segmenter = segmenter or load_segmenter(config, workers=threads)
        self._batch_size = config.placement.segment.batch_size

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.config)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "segment")
        segments, stuff = rows.nulls(), rows.nulls()
        waiting = rows.open()
        for start in range(0, len(waiting), self._batch_size):
            images = {}
            for index in waiting[start : start + self._batch_size]:
                with rows.attempt(index):
                    images[index] = _pixels(rows, index)
            scenes = rows.together_or_alone(images, lambda part: self.model([images[i] for i in part]))  # noqa: B023
            for index, scene in scenes.items():
                with rows.attempt(index):
                    segments[index], stuff[index] = to_columns(scene.resized(*images[index].shape[:2]))
        return rows.table(self.DROPS, segments=segments, stuff=stuff)


def _pixels(rows: Rows, index: int) -> Image:
    """The pixels of a row, H x W x 3. A copy, 0.3 ms: Arrow's memory is read-only, and torch takes only what is not."""
    data = rows.batch.column("pixels")[index].as_buffer()
    row = rows.row(index)
    return np.frombuffer(data, np.uint8).reshape(row["mask_height"], row["mask_width"], 3).copy()
