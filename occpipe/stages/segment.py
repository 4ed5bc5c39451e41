"""segment: encoded bytes to segments and stuff, 1:1, in pool A. Bound by the network's forward pass.

Photos are decoded at reduced scale (JPEG DCT scaling) in threads; masks are scaled to the source's upright size and
travel as run lengths, since a 12 MP mask is 12 MB as pixels and some kB as RLE.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from occpipe.config import Config
from occpipe.images import Header, Limits, decode_with_header
from occpipe.models import load_segmenter, set_threads
from occpipe.rows import Rows
from occpipe.segmenters import Segmenter
from occpipe.types import Image, Segment, Segmentation


def to_columns(scene: Segmentation) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Segments and stuff of a scene as the values of their Arrow columns."""
    segments = [segment_row(segment) for segment in scene.segments]
    stuff = [{"label": label, "confidence": confidence} for label, confidence in sorted(scene.stuff.items())]
    return segments, stuff


def segment_row(segment: Segment) -> dict[str, Any]:
    """One segment as a struct of the `segments` column."""
    return {
        "label": segment.label,
        "is_thing": segment.is_thing,
        "score": segment.score,
        "area": segment.area,
        "bbox": segment.bbox._asdict(),
        "mask": segment.rle.counts.decode("ascii"),
    }


class SegmentStage:
    """Adds what the header says, `segments` and `stuff`."""

    READS = ("data", "status", "reason", "error")
    WRITES = ("format", "width", "height", "segments", "stuff", "status", "reason", "error")

    def __init__(self, config: Config, segmenter: Segmenter | None = None) -> None:
        threads = set_threads(config.placement.segment.threads, share=1.0)
        self._segmenter = segmenter or load_segmenter(config, workers=threads)
        self._limits = Limits(config.corpus.max_pixels, config.corpus.min_side)
        self._side = config.segmenter.decode_side
        self._decoders = ThreadPoolExecutor(4)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "segment")
        decoded: dict[int, tuple[Header, Image]] = {}

        def work(index: int) -> None:
            with rows.attempt(index):
                decoded[index] = decode_with_header(rows.value("data", index), self._limits, self._side)

        list(self._decoders.map(work, rows.open()))
        scenes = rows.together_or_alone(decoded, lambda part: self._segmenter([decoded[i][1] for i in part]))
        columns = {name: rows.nulls() for name in ("format", "width", "height", "segments", "stuff")}
        for index, scene in scenes.items():
            with rows.attempt(index):
                header = decoded[index][0]
                segments, stuff = to_columns(scene.resized(header.height, header.width))
                values = (header.format, header.width, header.height, segments, stuff)
                for name, value in zip(columns, values, strict=True):
                    columns[name][index] = value
        return rows.table(**columns)
