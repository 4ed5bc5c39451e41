"""load_detections: what a scan saw in an image, in place of segmenting it again; 1:1, on CPUs, no image is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from occpipe.core.masks import Rle
from occpipe.core.types import Status
from occpipe.io.images import ImageError, ImageReason
from occpipe.io.storage import is_safe_key
from occpipe.stages.rows import Rows


@dataclass(frozen=True)
class LoadDetections:
    """Turns published rows into rows as they are after `segment`, whatever was decided about them.

    A row that was closed before anything was seen stays as it was; every other one is open again. The rows may be a
    stranger's, so that sizes, masks and names are checked before they are used.
    """

    max_pixels: int

    READS = ("uri", "size", "width", "height", "mask_width", "mask_height", "objects", "status", "reason", "error")
    WRITES = ("segments", "status", "reason", "error")
    DROPS = ("objects", "mask", "removed", "lost", "output", "output_size", "output_sha256", "config")

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch.drop_columns(list(Rows.STATE)), "load")
        segments = rows.nulls()
        for index in rows.open():
            with rows.attempt(index):
                uri, objects = rows.value("uri", index), rows.value("objects", index)
                if not is_safe_key(uri):
                    raise ImageError(ImageReason.UNSAFE_PATH, f"this name could leave the output folder: {uri!r}")
                if objects is None:
                    rows.close(index, *_closed(*(batch.column(name)[index].as_py() for name in Rows.STATE)))
                else:
                    segments[index] = self._segments(rows, index, objects)
        return rows.table(self.DROPS, segments=segments)

    def _segments(self, rows: Rows, index: int, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for names in (("width", "height"), ("mask_width", "mask_height")):
            width, height = (rows.value(name, index) for name in names)
            if min(height, width) < 1 or height * width > self.max_pixels:
                message = f"{' x '.join(names)} is {width} x {height}, the limit is {self.max_pixels} pixels"
                raise ImageError(ImageReason.TOO_MANY_PIXELS, message)
        if rows.value("size", index) is None:
            raise ValueError("a row of an image that was seen, without its size in bytes")
        for item in objects:
            Rle(height, width, item["mask"].encode("ascii")).check()
        return [{name: item[name] for name in ("label", "score", "mask")} for item in objects]


def _closed(status: str, reason: str | None, error: dict[str, str] | None) -> tuple[str, str, dict[str, str]]:
    """Status, reason and error of a row without objects; ValueError where it says that it ended in another way."""
    if status not in (Status.ERROR, Status.SKIPPED) or reason is None or error is None:
        raise ValueError(f"a row of status {status} without objects")
    return status, ImageReason(reason), error
