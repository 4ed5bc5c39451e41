"""Units: the rows of a shard that one load task reads, and how it reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from occpipe.dataset.layout import manifest_key
from occpipe.dataset.manifest import with_ids
from occpipe.dataset.parquet import with_file
from occpipe.io.storage import Store

MAX_UNIT_ROWS = 1_024
"""Images of a unit at most: what is repeated where a node is lost."""
MIN_UNIT_ROWS = 4
"""Images of a unit at least, where there are as many: a segmenter on a CPU takes one on each core."""
UNITS_PER_SHARD = 16
"""Units of a small shard: its images spread over a machine, and the first of them are done early."""
SLICE_ROWS = 32
"""Images that a load task has in work at once, and that travel together where their pixels fit a block."""
PLACE = ("image_id", "shard", "row", "earlier")
"""Columns that a reader adds to those of its file."""


@dataclass(frozen=True)
class Unit:
    """Rows of a shard by their places there, and the key of the image that an earlier run wrote for each."""

    shard: int
    rows: NDArray[np.int32]
    earlier: tuple[str | None, ...] | None = None


def unit_rows(images: int, limit: int) -> int:
    """Images of a unit, of so many in a shard: full slices, because the rest of one costs a GPU as much time."""
    rows = max(MIN_UNIT_ROWS, -(-images // UNITS_PER_SHARD))
    return min(limit, rows if rows < SLICE_ROWS else -(-rows // SLICE_ROWS) * SLICE_ROWS)


Reader = Callable[[Store, Unit], pa.Table]
"""From an output and a unit to its rows, as the first stage takes them; it runs in the workers."""


def read_manifest(output: Store, unit: Unit) -> pa.Table:
    """The rows of a unit from the manifest of an output."""
    return with_ids(read_rows(output, manifest_key(unit.shard), unit))


def read_rows(store: Store, key: str, unit: Unit) -> pa.Table:
    """Rows of a Parquet file by their places, with `shard`, `row` and `earlier`; other row groups stay unread."""

    def read(file: pq.ParquetFile) -> pa.Table:
        if len(unit.rows) and unit.rows.max() >= file.metadata.num_rows:  # a container has fewer images now
            return file.schema_arrow.empty_table()
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(counts)])
        groups = np.unique(np.searchsorted(starts, unit.rows, side="right") - 1)
        offsets = np.concatenate([[0], np.cumsum([counts[group] for group in groups])])[:-1]
        which = np.searchsorted(groups, np.searchsorted(starts, unit.rows, side="right") - 1)
        places = unit.rows - starts[groups][which] + offsets[which]
        return file.read_row_groups(groups.tolist()).take(pa.array(places))

    table = with_file(store, key, read)
    earlier = [None] * len(table) if unit.earlier is None else list(unit.earlier[: len(table)])
    table = table.replace_schema_metadata(None).append_column("shard", pa.array([unit.shard] * len(table), pa.int32()))
    table = table.append_column("row", pa.array(unit.rows[: len(table)], pa.int32()))
    return table.append_column("earlier", pa.array(earlier, pa.string()))
