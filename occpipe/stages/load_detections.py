"""load_detections: the detections of a scan, in place of `load` and `segment`; 1:1, on CPUs, no image is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from occpipe.core.masks import Rle
from occpipe.core.rows import ErrorRow, ObjectRow, Row, SegmentRow
from occpipe.core.types import Status
from occpipe.io.containers import place_of, split_uri
from occpipe.io.images import ImageError, ImageReason
from occpipe.io.storage import is_safe_key
from occpipe.stages.rows import Rows
from occpipe.stages.stage import Setup, Stage


@dataclass(frozen=True)
class LoadDetections(Stage):
    """Turns published rows into rows as they are after `segment`; their verdicts do not count.

    A row that was closed before `segment` stays as it was; every other one is open again. The rows may be a stranger's,
    so sizes, masks and names are checked before they are used.
    """

    max_pixels: int

    READS = (
        *("uri", "size", "etag", "width", "height", "mask_width", "mask_height"),
        *("objects", "status", "reason", "error"),
    )
    WRITES = ("segments", "status", "reason", "error")
    DROPS = ("objects", "mask", "removed", "lost", "output", "output_offset", "output_size", "output_sha256", "config")

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.config.corpus.max_pixels)

    def __call__(self, batch: pa.Table) -> pa.Table:
        published, rows = Rows(batch, "load"), Rows(batch.drop_columns(list(Rows.STATE)), "load")
        segments = rows.nulls()
        for index in rows.open():
            with rows.attempt(index):
                row = published.row(index)
                if not is_safe_key(split_uri(row["uri"])[0] if place_of(row["etag"]) else row["uri"]):
                    uri = row["uri"]
                    raise ImageError(ImageReason.UNSAFE_PATH, f"this name could leave the output folder: {uri!r}")
                if row["objects"] is None:
                    rows.close(index, *_closed(row["status"], row["reason"], row["error"]))
                else:
                    segments[index] = self._segments(row, row["objects"])
        return rows.table(self.DROPS, segments=segments)

    def _segments(self, row: Row, objects: list[ObjectRow]) -> list[SegmentRow]:
        sizes = {"width x height": (row["width"], row["height"])}
        sizes["mask_width x mask_height"] = width, height = row["mask_width"], row["mask_height"]
        for names, (across, down) in sizes.items():
            if min(across, down) < 1 or across * down > self.max_pixels:
                message = f"{names} is {across} x {down}, the limit is {self.max_pixels} pixels"
                raise ImageError(ImageReason.TOO_MANY_PIXELS, message)
        if row["size"] is None:
            raise ValueError("a row of an image that was seen, without its size in bytes")
        for item in objects:
            Rle(height, width, item["mask"].encode("ascii")).check()
        return [_segment(item) for item in objects]


def _segment(item: ObjectRow) -> SegmentRow:
    """What was seen of a thing; rows of earlier versions have no classes."""
    thing, classes = item.get("thing"), item.get("classes")
    return {"label": item["label"], "score": item["score"], "thing": thing, "classes": classes, "mask": item["mask"]}


def _closed(status: str | None, reason: str | None, error: ErrorRow | None) -> tuple[str, str, ErrorRow]:
    """Status, reason and error of a row without objects; ValueError where it ended in another way."""
    if status not in (Status.ERROR, Status.SKIPPED) or reason is None or error is None:
        raise ValueError(f"a row of status {status} without objects")
    return status, ImageReason(reason), error
