"""A few published rows, whole, by their places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from occpipe.core.rows import Row
from occpipe.dataset.reader import Published


def read_rows(published: Published, places: Sequence[int]) -> dict[int, Row]:
    """The rows at these places, counted over the files in their order.

    Only files that hold one of them are read, some hundred rows in memory at a time; StorageError where one cannot be.
    """
    rows: dict[int, Row] = {}
    start, all_places = 0, np.array(sorted(places), np.int64)
    for file in published.files:
        stop = start + file.rows
        if ((all_places >= start) & (all_places < stop)).any():
            for batch in published.batches_of(file.name):
                here = all_places[(all_places >= start) & (all_places < start + len(batch))]
                rows |= zip(here.tolist(), batch.take(pa.array(here - start)).to_pylist(), strict=True)
                start += len(batch)
        start = stop
    return rows
