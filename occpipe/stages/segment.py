"""segment: encoded bytes to segments and stuff, 1:1, in pool A. Bound by the network's forward pass.

Photos are decoded at reduced scale (JPEG DCT scaling) in threads; masks are scaled to the source's upright size and
travel as run lengths, since a 12 MP mask is 12 MB as pixels and some kB as RLE.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import pyarrow as pa

from occpipe.config import Config
from occpipe.images import Header, Limits, decode_with_header
from occpipe.models import load_segmenter, set_threads
from occpipe.rows import Rows
from occpipe.segmenters import Segmenter
from occpipe.types import Image, Segment, Segmentation

_Decoded: TypeAlias = dict[int, tuple[Header, Image]]
"""Pictures by their row."""


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
        self._side, self._together = config.segmenter.decode_side, config.placement.segment.batch_size
        self._decoders = ThreadPoolExecutor(4)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "segment")
        columns = {name: rows.nulls() for name in ("format", "width", "height", "segments", "stuff")}
        for decoded in self._decoded(rows):
            for index, scene in self._scenes(rows, decoded).items():
                with rows.attempt(index):
                    header = decoded[index][0]
                    segments, stuff = to_columns(scene.resized(header.height, header.width))
                    values = (header.format, header.width, header.height, segments, stuff)
                    for name, value in zip(columns, values, strict=True):
                        columns[name][index] = value
        return rows.table(**columns)

    def _scenes(self, rows: Rows, decoded: _Decoded) -> dict[int, Segmentation]:
        return rows.together_or_alone(decoded, lambda part: self._segmenter([decoded[i][1] for i in part]))

    def _decoded(self, rows: Rows) -> Iterator[_Decoded]:
        """The pictures of the open rows, as many as the model sees at once; the next ones are decoded meanwhile."""

        def work(index: int) -> tuple[Header, Image] | None:
            with rows.attempt(index):
                return decode_with_header(rows.value("data", index), self._limits, self._side)
            return None

        waiting = rows.open()
        parts = [waiting[start : start + self._together] for start in range(0, len(waiting), self._together)]
        coming: list[tuple[int, Future[tuple[Header, Image] | None]]] = []
        for part in (*parts, []):
            here, coming = coming, [(index, self._decoders.submit(work, index)) for index in part]
            yield {index: picture for index, future in here if (picture := future.result())}
