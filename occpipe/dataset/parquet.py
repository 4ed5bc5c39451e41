"""Parquet files as objects of a store."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from occpipe.storage import Store

ROW_GROUP = 1_000
"""Rows of a row group of published rows: what a reader that wants one row has to decode."""


def to_parquet(table: pa.Table, row_group_size: int | None = None) -> bytes:
    """A table as the bytes of one Parquet file (zstd); equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_size)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_parquet(store: Store, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet object of a store, or some of its columns."""
    return pq.read_table(pa.BufferReader(store.read(key)), columns=None if columns is None else list(columns))


def read_footer(store: Store, key: str) -> pq.FileMetaData:
    """What the footer of a Parquet object says, without reading its rows."""
    with store.open(key) as file:
        return pq.ParquetFile(file).metadata
