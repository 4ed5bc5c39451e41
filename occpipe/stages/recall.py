"""recall: what an earlier run saw in an image, in place of segmenting it again; 1:1, on CPUs, bound by reading the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from occpipe.images import ImageError, ImageReason
from occpipe.masks import Rle
from occpipe.published import RowsById
from occpipe.rows import Rows
from occpipe.storage import is_safe_key
from occpipe.types import Status

_SEEN = ("status", "reason", "error", "format", "width", "height", "objects", "stuff")


@dataclass(frozen=True)
class Recall:
    """Adds what a published row knows of an image: its things as `segments`, and its stuff.

    A row that was closed before anything was seen stays as it was; every other one is open again, whatever was decided.
    The rows may be a stranger's, so sizes, masks and names are looked at before they are used.
    """

    scan: RowsById
    max_pixels: int

    READS = ("image_id", "uri", "status", "reason", "error")
    WRITES = ("format", "width", "height", "segments", "stuff", "status", "reason", "error")

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "recall")
        columns: dict[str, list[Any]] = {
            name: rows.nulls() for name in ("format", "width", "height", "stuff", "segments")
        }
        seen = self.scan(batch.column("image_id").to_pylist(), _SEEN)
        for index in rows.open():
            with rows.attempt(index):
                uri, row = rows.value("uri", index), seen.get(rows.value("image_id", index))
                if row is None:
                    raise LookupError("the row of this name has the image_id of another one")
                for name in ("format", "width", "height", "stuff"):
                    columns[name][index] = row[name]
                if not is_safe_key(uri):
                    raise ImageError(ImageReason.UNSAFE_PATH, f"this name could leave the output folder: {uri!r}")
                if row["objects"] is None:
                    rows.close(index, *_closed(row))
                else:
                    columns["segments"][index] = self._segments(row)
        return rows.table(**columns)

    def _segments(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        height, width = row["height"], row["width"]
        if min(height, width) < 1 or height * width > self.max_pixels:
            raise ImageError(ImageReason.TOO_MANY_PIXELS, f"{width} x {height}, the limit is {self.max_pixels} pixels")
        for item in row["objects"]:
            Rle(height, width, item["mask"].encode("ascii")).check()
        return [item | {"is_thing": True} for item in row["objects"]]


def _closed(row: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Status, reason and error of a row without objects; ValueError where it says that it ended in another way."""
    status, error = row["status"], row["error"]
    if status not in (Status.ERROR, Status.SKIPPED) or error is None:
        raise ValueError(f"a row of status {status} without objects")
    return status, ImageReason(row["reason"]), error
