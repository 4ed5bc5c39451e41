"""Parquet files as objects of a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from occpipe.io.storage import Store, with_retries

T = TypeVar("T")

PATIENCE_S = 300.0
"""How long a read or a write is tried again: a storage that is away for minutes must not become error rows."""
ROW_GROUP = 1_000
"""Rows of a row group of published rows: a reader of one row has to decode so many."""


def to_parquet(table: pa.Table, row_group_size: int | None = None) -> bytes:
    """A table as the bytes of one Parquet file (zstd); equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_size)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_parquet(store: Store, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet object of a store, or some of its columns, of which only the bytes are read."""
    if columns is None:
        return with_retries(lambda: pq.read_table(pa.BufferReader(store.read(key))), patience_s=PATIENCE_S)
    return with_file(store, key, lambda file: file.read(list(columns)))


def read_footer(store: Store, key: str) -> pq.FileMetaData:
    """The footer of a Parquet object; its rows are not read."""
    return with_file(store, key, lambda file: file.metadata)


def with_file(store: Store, key: str, read: Callable[[pq.ParquetFile], T]) -> T:
    """The result of `read` for a Parquet object; again where it is replaced meanwhile, or its store is away."""

    def attempt() -> T:
        with store.open(key) as opened:
            return read(pq.ParquetFile(opened, pre_buffer=True))

    return with_retries(attempt, patience_s=PATIENCE_S)
