"""What needs no work any more, from the rows of the ledger.

A million rows lie in thousands of parts of many MB, of which a resume needs some 20 bytes a row. So the driver, which sees
every part, writes those bytes into an index as it goes on. The index is only a short cut: a part that it does not name,
written in the last minutes before a crash, is read itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from occpipe.ledger import PARTS, part_keys, read_parquet, run_of, to_parquet
from occpipe.storage import Store, with_retries
from occpipe.types import Status

INDEX = "ledger/index"
INDEX_ROWS, INDEX_SECONDS = 8_192, 300.0
"""What the driver gathers at most before it writes an index file."""
_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("etag", pa.int64(), nullable=False),
        pa.field("fine", pa.bool_(), nullable=False),
        pa.field("part", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    ]
)
_READERS = 16


def etag_hash(etag: str | None) -> int:
    """A 64-bit hash of a storage tag, so that 100 million of them fit into memory."""
    return int.from_bytes(hashlib.blake2b((etag or "").encode(), digest_size=8).digest(), "little", signed=True)


def index_rows(rows: pa.Table, part: str) -> pa.Table:
    """What the index keeps of the published rows of a part."""
    etags = [etag_hash(tag) for tag in rows.column("etag").to_pylist()]
    columns = [
        rows.column("image_id"),
        pa.array(etags, pa.int64()),
        pc.not_equal(rows.column("status"), Status.ERROR),
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int32)), [part.removeprefix(f"{PARTS}/")]),
    ]
    return pa.table(columns, schema=_SCHEMA)


class IndexWriter:
    """Gathers index rows, and writes a file when there are many or the last one is some time ago."""

    def __init__(self, store: Store, run: int) -> None:
        self._store, self._run = store, run
        self._rows: list[pa.Table] = []
        self._files, self._last = 0, time.monotonic()

    def add(self, rows: pa.Table) -> None:
        """Add rows of parts that are committed; other columns than those of the index are left out."""
        self._rows.append(rows.select(_SCHEMA.names).cast(_SCHEMA))
        if sum(map(len, self._rows)) >= INDEX_ROWS or time.monotonic() - self._last >= INDEX_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._rows:
            rows = pa.concat_tables(self._rows).unify_dictionaries().combine_chunks()
            key, data = f"{INDEX}/{self._run:06d}-{self._files:06d}.parquet", to_parquet(rows)
            with contextlib.suppress(OSError):  # a resume then reads the parts themselves
                with_retries(lambda: self._store.write(key, data))
            self._files, self._rows = self._files + 1, []
        self._last = time.monotonic()


@dataclass(frozen=True, slots=True)
class Done:
    """What needs no work: sorted image ids (int64, N) with the hash of the etag each was done at (int64, N)."""

    ids: NDArray[np.int64]
    etags: NDArray[np.int64]

    def covers(self, ids: NDArray[np.int64], etags: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these images are done at this etag."""
        if not len(self.ids):
            return np.zeros(len(ids), dtype=bool)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        covered: NDArray[np.bool_] = (self.ids[at] == ids) & (self.etags[at] == etags)
        return covered


def load_done(store: Store, retry: str, first_run: int = 1) -> Done:
    """What is done according to the rows of a run and those after it.

    `retry`: `none` counts every row as done, `errors` all but error rows, `all` none.
    """
    rows = [_SCHEMA.empty_table(), *(() if retry == "all" else _index(store, part_keys(store, first_run)))]
    table = pa.concat_tables(rows).unify_dictionaries().combine_chunks()
    ids, etags, fine = (table.column(name).to_numpy() for name in ("image_id", "etag", "fine"))
    parts = table.column("part").chunk(0) if len(table) else pa.array([], _SCHEMA.field("part").type)
    runs = np.array([run_of(f"{PARTS}/{part}") for part in parts.dictionary.to_pylist()], np.int64)
    chosen = newest(ids, runs[parts.indices.to_numpy()], fine)
    if retry == "errors":
        chosen = chosen[fine[chosen]]
    return Done(ids[chosen], etags[chosen])


def newest(ids: NDArray[np.int64], runs: NDArray[np.int64], fine: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The indices of the rows that count, by rising id: of several rows of an image the one of the newest run.

    Within a run a task that ran twice gives equal rows, or an error once and a result the other time: the result counts.
    """
    order = np.lexsort((fine, runs, ids))
    last = np.ones(len(order), bool)
    last[:-1] = ids[order][1:] != ids[order][:-1]
    return np.asarray(order[last])


def _index(store: Store, parts: list[str]) -> Iterator[pa.Table]:
    """The index rows of these parts: from the index, and from the parts that it does not know."""
    wanted = {part.removeprefix(f"{PARTS}/") for part in parts}
    files = [entry.key for entry in store.walk(INDEX)]
    with ThreadPoolExecutor(_READERS) as pool:
        for rows in pool.map(lambda key: read_parquet(store, key), files):
            rows = rows.cast(_SCHEMA)
            named = pc.unique(rows.column("part")).to_pylist()
            if not wanted.issuperset(named):  # of an older version, or already read
                known = pa.array(sorted(wanted), pa.string())
                rows = rows.filter(pc.is_in(rows.column("part").cast(pa.string()), known))
            wanted.difference_update(named)
            yield rows

        def read(part: str) -> pa.Table:
            key = f"{PARTS}/{part}"
            return index_rows(read_parquet(store, key, ["image_id", "etag", "status"]), key)

        yield from pool.map(read, sorted(wanted))
