"""Parquet files with a column of images: which column, some of its values, and copies in which some are replaced.

A column of images is binary, or a struct with a binary field `bytes`, as `datasets` writes it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from occpipe.core.errors import first_line
from occpipe.io.storage import Writer

MAX_ROW_GROUP = 2_000_000_000
"""Bytes of a row group, unpacked: it is in memory as a whole where an image of it is replaced."""
BATCH = 32
READ_AHEAD = 4_000_000
"""Bytes of a column that are read at once."""
_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", "bytes", "content", "data")
"""Names of a column with images, in any case, the likeliest first."""


class BrokenParquetError(ValueError):
    """A Parquet file, or a part of it, that cannot be read."""


@contextmanager
def reading(file: BinaryIO, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """An open Parquet file, whose footer may be known.

    What is wrong with it is a BrokenParquetError; errors of its storage stay as they are.
    """
    checked = _Watched(file)
    try:
        yield pq.ParquetFile(checked, metadata=footer, pre_buffer=False, buffer_size=READ_AHEAD)
    except (pa.ArrowException, OSError, OverflowError, MemoryError) as error:
        if checked.error is not None:
            raise checked.error from None
        raise BrokenParquetError(first_line(error)) from error


def image_column(schema: pa.Schema, name: str | None = None) -> str | None:
    """The column of images of a schema: that of this name, or the likeliest; None where there is none."""
    columns: list[str] = [field.name for field in schema if _is_images(field.type)]
    if name is not None:
        return name if name in columns else None
    features = _features(schema)
    known = [column for column in columns if features.get(column) == "Image"]
    if known:
        return known[0]
    lower: dict[str, str] = {column.lower(): column for column in reversed(columns)}
    named = [lower[candidate] for candidate in _NAMES if candidate in lower]
    structs = [column for column in columns if pa.types.is_struct(schema.field(column).type)]
    return next(iter([*named, *structs, *(columns if len(columns) == 1 else [])]), None)


def values(
    file: pq.ParquetFile, group: int, column: str, rows: Sequence[int]
) -> Iterator[tuple[int, bytes | str | None]]:
    """The images of some rows of a row group, in ascending order: bytes, or where they lie (text), or None.

    They are read in batches, so that a row group need not fit into memory.
    """
    wanted, start, at = sorted(rows), 0, 0
    if not wanted:
        return
    for batch in file.iter_batches(BATCH, row_groups=[group], columns=[column], use_threads=False):
        images = batch.column(0)
        while at < len(wanted) and wanted[at] < start + len(images):
            yield wanted[at], _value(images[wanted[at] - start])
            at += 1
        if at == len(wanted):
            return
        start += len(images)


def copy_parquet(
    file: pq.ParquetFile, sink: Writer, column: str, replace: Callable[[int], bytes | None], changed: Sequence[int]
) -> None:
    """Copy a Parquet file in which the images of the rows `changed` are replaced.

    Schema, order, row groups, compression and metadata are those of the source. One row group is in memory at a time.
    """
    changed = sorted(changed)
    with pq.ParquetWriter(FileSink(sink), file.schema_arrow, **_options(file)) as writer:
        start = 0
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            if about.total_byte_size > MAX_ROW_GROUP:
                raise BrokenParquetError(f"a row group of {about.total_byte_size} bytes, the limit is {MAX_ROW_GROUP}")
            table = file.read_row_group(group, use_threads=False)
            here = {row - start: replace(row) for row in changed if start <= row < start + about.num_rows}
            if here:
                place = table.schema.get_field_index(column)
                table = table.set_column(place, table.schema.field(place), _replaced(table.column(place), here))
            if len(table):
                writer.write_table(table, row_group_size=len(table))
            start += about.num_rows


def _is_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The types of the columns as `datasets` notes them; none where it has not, or not so."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _value(scalar: pa.Scalar) -> bytes | str | None:
    value = scalar.as_py()
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        return data if data is not None else str(path) if path is not None else None
    return value  # type: ignore[no-any-return]  # a binary column


def _replaced(images: pa.ChunkedArray, here: dict[int, bytes | None]) -> pa.ChunkedArray:
    """A column with other bytes in some rows; its type and what else a struct has stay."""
    mask = pa.array([here.get(row) is not None for row in range(len(images))])
    new = [here[row] for row in sorted(here) if here[row] is not None]
    if not pa.types.is_struct(images.type):
        return pc.replace_with_mask(_whole(images), mask, pa.array(new, images.type))
    struct = _whole(images)
    fields = list(struct.type)
    parts = [
        pc.replace_with_mask(struct.field(place), mask, pa.array(new, field.type))
        if field.name == "bytes"
        else struct.field(place)
        for place, field in enumerate(fields)
    ]
    return pa.chunked_array([pa.StructArray.from_arrays(parts, fields=fields, mask=struct.is_null())])


def _whole(images: pa.ChunkedArray) -> pa.Array:
    whole = images.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


def _options(file: pq.ParquetFile) -> dict[str, Any]:
    """Compression and dictionaries as the first row group has them."""
    if not file.num_row_groups:
        return {}
    about = file.metadata.row_group(0)
    columns = [about.column(number) for number in range(about.num_columns)]
    packed = {column.path_in_schema: _codec(column.compression) for column in columns}
    dictionaries = [column.path_in_schema for column in columns if column.has_dictionary_page]
    return {
        "compression": packed,
        "use_dictionary": dictionaries or False,
        "write_statistics": [column.path_in_schema for column in columns if column.is_stats_set],
        "version": "2.6" if file.metadata.format_version not in ("1.0", "2.4") else file.metadata.format_version,
    }


def _codec(name: str) -> str:
    return "none" if name == "UNCOMPRESSED" else name.lower()


class _Watched:
    """A file that remembers an error of its storage, which Arrow may tell in other words."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.closed = file, False
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        try:
            return self._file.read(size)
        except Exception as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self._file.tell()

    def readable(self) -> bool:
        """As a file that is read."""
        return True

    def seekable(self) -> bool:
        """As a file of which parts are read."""
        return True

    def close(self) -> None:
        """Its owner closes it."""


class SinkError(Exception):
    """An error of what is written, as no error of what is read; `cause` is what the store raised."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause


class FileSink:
    """A writer as the file that Arrow writes; SinkError where it fails."""

    def __init__(self, sink: Writer) -> None:
        self._sink, self._at, self.closed = sink, 0, False

    def write(self, data: bytes) -> int:
        """Take some bytes."""
        try:
            self._sink.write(data)
        except OSError as error:
            raise SinkError(error) from error
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        """How much was written."""
        return self._at

    def writable(self) -> bool:
        """As a file that is written."""
        return True

    def flush(self) -> None:
        """The writer is flushed by its owner."""

    def close(self) -> None:
        """Its owner closes it."""
