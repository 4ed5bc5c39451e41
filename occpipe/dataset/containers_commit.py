"""The containers of a shard, written when all of its images have a row.

A cleaned image waits in a blob beside the part with its row. The commit streams each source container to the output once,
with cleaned images in the place of the old ones, and writes their new places into the rows. A container without a cleaned
image is copied by its store. Each container is written as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from occpipe.core.schemas import PUBLISHED
from occpipe.core.types import Status
from occpipe.io.containers import Place, place_of, split_uri
from occpipe.io.containers.parquet import BrokenParquetError, SinkError, copy_parquet, reading
from occpipe.io.containers.read import read_member
from occpipe.io.containers.tar import Stream, TarMember, copy_tar
from occpipe.io.images import ImageReason
from occpipe.io.storage import SourceChangedError, Store, TooLargeError, Writer, store_of, with_retries

PATIENCE_S = 300.0
_MAX_BYTES = 1 << 40
IN_OUTPUT = ("output", "output_offset", "output_size", "output_sha256")
"""Columns that say where a written image is."""
NARROW = ["uri", "etag", "status", "reason", "error", "size", "sha256", "format", *IN_OUTPUT]
"""Columns of which a commit holds all rows as Python values; masks and things are not among them."""
Row = dict[str, Any]


class LostBytesError(Exception):
    """The bytes of a cleaned image are not where its row says."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


def read_output(store: Store, row: Mapping[str, Any], limit: int = _MAX_BYTES) -> bytes:
    """The bytes of the written image of a published row, which may lie in a container or a blob.

    Raises as `Store.read` does, and ImageError for a broken container.
    """
    key, offset, size = row["output"], row.get("output_offset"), row["output_size"]
    if offset is None:
        return store.read(key, limit)
    container = split_uri(key)[0]
    if container.endswith(".parquet"):
        place = place_of(row["etag"])
        column = place.where if place and place.kind == "parquet" else PACKED_COLUMN
        return read_member(store, f"{container}#{offset}", None, Place("parquet", column, ""), limit)
    return read_member(store, key, size, Place("tar", str(offset), ""), limit)


def with_values(rows: pa.Table, values: list[Row]) -> pa.Table:
    """Rows with the statuses and places that a commit has changed."""
    for name in ("status", "reason", "error", *IN_OUTPUT):
        field = PUBLISHED.field(name)
        column = pa.array([value[name] for value in values], field.type)
        rows = rows.set_column(rows.schema.get_field_index(name), field, column)
    return rows


PACKED_COLUMN = "image"
"""The column with images of the Parquet files that `output.pack` makes."""


MakeContainers = Callable[[Store, str, int, pa.Table], pa.Table]
"""Writes the containers of the rows of a shard into a folder, and returns the rows with the places of their images."""


@dataclass(frozen=True)
class Containers:
    """Writes the containers of a shard: from those below `root` to those in the folder `images` of an output.

    `keep_broken`: of a container that cannot be read to its end there is what could be read. `sidecars`: a file
    `KEY.occpipe.json` with the row follows each image of a tar.
    """

    root: str
    keep_broken: bool = True
    sidecars: bool = False

    def __call__(self, output: Store, images: str, shard: int, rows: pa.Table) -> pa.Table:  # noqa: ARG002 - for `Pack`
        """Write the containers of all rows of a shard.

        Returns:
            The rows with the places of their images. Those of a container that has changed meanwhile are error rows.

        Raises:
            LostBytesError: A cleaned image is not there any more.
            OSError: As a store does, for minutes.
        """
        values = rows.select(NARROW).to_pylist()
        containers: dict[str, list[int]] = {}
        for index, row in enumerate(values):
            containers.setdefault(split_uri(row["uri"])[0], []).append(index)
        for key, indices in containers.items():
            of_container = {index: values[index] for index in indices}
            try:
                write = partial(self._write, output, images, key, of_container, rows)
                with_retries(write, patience_s=PATIENCE_S)
            except (*GONE, BrokenParquetError) as error:
                for row in of_container.values():
                    close(row, error)
        return with_values(rows, values)

    def _write(self, output: Store, images: str, key: str, rows: dict[int, Row], whole: pa.Table) -> None:
        target, source = f"{images}/{key}", store_of(self.root)
        etag = next(place.etag for row in rows.values() if (place := place_of(row["etag"])))
        cleaned = {index: row for index, row in rows.items() if row["status"] == Status.CLEANED}
        reasons = {row["reason"] for row in rows.values()}
        is_broken = ImageReason.BROKEN_CONTAINER in reasons
        if is_broken and not (self.keep_broken and any(place.kind != "fault" for _, place in _places(rows))):
            output.delete(target)
            for row in rows.values():
                row.update(dict.fromkeys(IN_OUTPUT))
            return
        source.check_tag(key, etag)
        entry = source.find(key)
        size = entry.size or 0 if entry else 0
        is_tar = key.lower().endswith(".tar")
        places = None
        if not cleaned and not (is_tar and (self.sidecars or reasons & _LEFT_OUT)):
            output.copy(source, key, target, etag, size)
        elif is_tar:
            with source.open(key) as file, output.writer(target) as sink:
                places = self._copy_tar(output, Stream(file, size), sink, rows, whole)
        else:
            _write_parquet(output, target, source, key, cleaned)
        source.check_tag(key, etag)
        _set_places(images, rows, places)

    def _copy_tar(
        self, output: Store, source: Stream, sink: Writer, rows: dict[int, Row], whole: pa.Table
    ) -> dict[int, int]:
        """Copy a tar; where each image began, and where it begins now."""
        at = {int(place.where): index for index, place in _places(rows) if place.kind == "tar"}

        def replace(member: TarMember) -> bytes | None:
            index = at.get(member.data)
            if index is None or rows[index]["status"] != Status.CLEANED:
                return None
            return cleaned_bytes(output, rows[index], index)

        def after(member: TarMember) -> tuple[str, bytes] | None:
            if not self.sidecars or member.data not in at:
                return None
            (row,) = whole.slice(at[member.data], 1).drop_columns(list(IN_OUTPUT)).to_pylist()
            return _sidecar_name(member.name), json.dumps(row, sort_keys=True).encode()

        return copy_tar(source, sink, replace, after)


_LEFT_OUT = {ImageReason.UNSAFE_PATH, ImageReason.DUPLICATE_NAME, ImageReason.BROKEN_CONTAINER}
"""Reasons for which the copy of a tar lacks something."""


def _places(rows: dict[int, Row]) -> Iterator[tuple[int, Place]]:
    for index, row in rows.items():
        if (place := place_of(row["etag"])) is not None:
            yield index, place


def cleaned_bytes(output: Store, row: Row, index: int) -> bytes:
    """The bytes of a cleaned image, the `index`-th of its shard; LostBytesError where they are others."""
    try:
        data = read_output(output, row)
    except FileNotFoundError:
        raise LostBytesError(index) from None
    if hashlib.sha256(data).hexdigest() != row["output_sha256"]:
        raise LostBytesError(index)
    return data


def _write_parquet(output: Store, target: str, source: Store, key: str, cleaned: dict[int, Row]) -> None:
    at = {int(split_uri(row["uri"])[1]): index for index, row in cleaned.items()}
    column = next(place.where for _, place in _places(cleaned))
    try:
        with output.writer(target) as sink, source.open(key) as raw, reading(raw) as file:
            copy_parquet(file, sink, column, lambda row: cleaned_bytes(output, cleaned[at[row]], at[row]), list(at))
    except SinkError as error:
        raise error.cause from None


def _set_places(images: str, rows: dict[int, Row], moved: dict[int, int] | None) -> None:
    """Write into the rows where their images are now; `moved` says where each byte of a tar at which one begins went."""
    for index, place in _places(rows):
        row = rows[index]
        if row["status"] == Status.CLEANED:
            size, sha256 = row["output_size"], row["output_sha256"]
        elif row["status"] == Status.UNCHANGED:
            size, sha256 = row["size"], row["sha256"]
        else:
            row.update(dict.fromkeys(IN_OUTPUT))
            continue
        start = int(place.where if place.kind == "tar" else split_uri(row["uri"])[1])
        if moved is not None and start not in moved:  # a store without tags tells of no change
            close(row, SourceChangedError("it is not where it was seen"))
            continue
        start = start if moved is None else moved[start]
        row.update(zip(IN_OUTPUT, (f"{images}/{row['uri']}", start, size, sha256), strict=True))


_REASONS: dict[type[Exception], ImageReason] = {
    SourceChangedError: ImageReason.SOURCE_CHANGED,
    TooLargeError: ImageReason.SOURCE_CHANGED,
    PermissionError: ImageReason.FORBIDDEN,
    FileNotFoundError: ImageReason.MISSING,
    BrokenParquetError: ImageReason.BROKEN_CONTAINER,
}
GONE = (SourceChangedError, TooLargeError, PermissionError, FileNotFoundError)
"""What a source raises that is not any more what it was when its image was seen."""


def close(row: Row, error: Exception) -> None:
    """Make a row an error row, if it is none: its container is not written."""
    row.update(dict.fromkeys(IN_OUTPUT))
    if row["status"] in (Status.ERROR, Status.SKIPPED):
        return
    reason = next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))
    about = {"stage": "commit", "type": type(error).__name__, "message": str(error)[:300]}
    row.update({"status": Status.ERROR, "reason": reason, "error": about})


def _sidecar_name(name: str) -> str:
    """`a/000.occpipe.json` for `a/000.jpg`: the key of a sample ends at the first dot of its file name."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}.occpipe.json"
