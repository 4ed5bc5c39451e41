"""Published rows as a page reads them: in batches of few columns, and a few of them whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from occpipe.errors import StorageError
from occpipe.published import Published
from occpipe.stages.publish import METADATA


def batches(published: Published, columns: list[str], size: int = 65_536) -> Iterator[pa.Table]:
    """Some columns of all rows, at most `size` rows at a time; parts of objects too: `objects.list.element.label`.

    Raises StorageError where a file cannot be read.
    """
    for file in published.manifest["files"]:
        yield from _batches_of(published, file, columns, size)


def read_rows(published: Published, places: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The rows at these places, counted over the files in the order of the manifest.

    Only files that hold one of them are read, a thousand rows in memory at a time.
    """
    found: dict[int, dict[str, Any]] = {}
    start, wanted = 0, np.array(sorted(places), np.int64)
    for file in published.manifest["files"]:
        stop = start + file["rows"]
        if ((wanted >= start) & (wanted < stop)).any():
            for batch in _batches_of(published, file, None, 1000):
                here = wanted[(wanted >= start) & (wanted < start + len(batch))]
                found |= zip(here.tolist(), batch.take(pa.array(here - start)).to_pylist(), strict=True)
                start += len(batch)
        start = stop
    return found


def _batches_of(
    published: Published, file: Mapping[str, Any], columns: list[str] | None, size: int
) -> Iterator[pa.Table]:
    key = f"{METADATA}/{file['file']}"
    try:
        data = pa.BufferReader(published.store.read(key))
        for batch in pq.ParquetFile(data).iter_batches(size, columns=columns):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(f"{published.store.url(key)}: {error}") from error
