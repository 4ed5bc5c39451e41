"""The backlog of a run: what is left to do in each shard, in units, and which shards are ready for their commit.

A shard without a published file and without parts is done whole. A shard with parts, with a marker, or with rows to retry
is examined first: its rows show what is done. All other shards are done, and are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor

import numpy as np
import pyarrow as pa

from occpipe.dataset.containers_commit import MakeContainers
from occpipe.dataset.layout import Layout, run_of
from occpipe.dataset.lock import Share
from occpipe.dataset.manifest import ShardInfo
from occpipe.dataset.shards import Commit, commit_shard, list_parts, list_shards, pending_rows
from occpipe.io.storage import Store, open_store
from occpipe.pipeline.units import Unit, unit_rows

MAX_UNITS = 4_096
"""Read tasks of one execution of Ray Data: its driver holds some kB for each block until the execution ends."""
MAX_EXAMINED = 64
"""Shards that are examined at the same time."""
MAX_EXAMINED_HERE = 32
"""Shards that are examined in this process; more are examined in tasks."""


class Backlog:
    """The shards of one share of an output; `limit` leaves out all images but the first ones of the manifest."""

    def __init__(
        self, store: Store, layout: Layout, share: Share, retry: str, limit: int | None, max_unit_rows: int
    ) -> None:
        self._store, self._layout, self._share, self._retry = store, layout, share, retry
        self._limit, self._max_unit_rows = limit, max_unit_rows
        self._parts = list_parts(store, layout)
        self._published = list_shards(store, layout.metadata)
        self._open = list_shards(store, layout.all_open)
        self.run = 1 + max((run_of(part) for parts in self._parts.values() for part in parts), default=0)
        self._rows: dict[int, int] = {}
        self._fresh: dict[int, None] = {}
        self._unsure: dict[int, str] = {}  # with what counts as done
        self._left: dict[int, int] = {}
        self._written: set[int] = set()
        self._commits: dict[int, int] = {}
        self.pending = 0
        self.lost = 0

    @property
    def images(self) -> int:
        """Images of all known shards, those of other shares as well."""
        return sum(self._rows.values())

    @property
    def own_images(self) -> int:
        """Images that are of this share and within the limit."""
        return sum(self._scope(shard) for shard in self._rows if self._share.has(shard))

    def add(self, shards: Iterable[ShardInfo]) -> None:
        """Add shards of the manifest."""
        for shard in shards:
            known = shard.number in self._rows
            self._rows[shard.number] = shard.rows
            if known or not self._share.has(shard.number):
                continue
            if shard.number not in self._published and shard.number not in self._parts:
                self._fresh[shard.number] = None
            elif shard.number in self._open or shard.number in self._parts or self._retry != "none":
                self._unsure[shard.number] = self._retry

    def examine_again(self, shards: Iterable[int]) -> None:
        """Examine shards in the next execution, because something in them has changed."""
        for shard in shards:
            if self._share.has(shard) and shard not in self._fresh:
                self._unsure.setdefault(shard, "none")

    @property
    def has_work(self) -> bool:
        """Whether any shard is left to examine or to do."""
        return bool(self._fresh or self._unsure)

    @property
    def has_fresh(self) -> bool:
        """Whether there is a shard of which nothing is done."""
        return bool(self._fresh)

    def take(self, executor: Callable[[], Executor], commit: Callable[[int], None]) -> list[Unit]:
        """Units for one execution. `commit` gets the shards of which only the commit is left."""
        units: list[Unit] = []
        for shard, pending in self._examine(executor):
            self._left[shard] = len(pending)
            if len(pending):
                units += self._cut(shard, pending)
            elif shard in self._parts or shard in self._open or shard not in self._published:
                commit(shard)
            if len(units) >= MAX_UNITS:
                return units
        for shard in list(self._fresh):
            if len(units) >= MAX_UNITS:
                break
            del self._fresh[shard]
            self._left[shard] = self._scope(shard)
            rows = np.arange(self._left[shard], dtype=np.int32)
            if len(rows):
                units += self._cut(shard, pa.table({"row": rows, "earlier": pa.nulls(len(rows), pa.string())}))
        return units

    def done(self, shard: int, rows: int) -> bool:
        """Count written rows of a shard; True where they are its last ones."""
        self._left[shard] -= rows
        self._written.add(shard)
        return self._left[shard] <= 0

    def unfinished(self) -> list[int]:
        """The shards of a stopped run of which some rows are written and some are left."""
        return [shard for shard in sorted(self._written) if self._left[shard] > 0]

    def committed(self, commit: Commit, *, stopped: bool) -> None:
        """Note a commit. A shard in which images are missing is examined again, once."""
        shard = commit.shard
        self._parts.pop(shard, None)
        self._open.discard(shard)
        self._published.add(shard)
        missing = commit.missing - (self._rows.get(shard, 0) - self._scope(shard))
        if missing <= 0 or stopped:
            return
        self._commits[shard] = self._commits.get(shard, 0) + 1
        if self._commits[shard] > 1:
            self.lost += missing
        else:
            self._unsure[shard] = "none"

    def _scope(self, shard: int) -> int:
        """The rows of a shard that are within the limit."""
        rows = self._rows[shard]
        if self._limit is None:
            return rows
        before = sum(count for number, count in self._rows.items() if number < shard)
        return max(0, min(rows, self._limit - before))

    def _examine(self, executor: Callable[[], Executor]) -> Iterator[tuple[int, pa.Table]]:
        """The pending rows of the shards that are not examined yet, some shards at a time."""
        unsure = sorted(self._unsure)
        for start in range(0, len(unsure), MAX_EXAMINED):
            chosen = unsure[start : start + MAX_EXAMINED]
            arguments = [
                (self._store.uri, self._layout, shard, self._parts.get(shard, []), self._unsure[shard])
                for shard in chosen
            ]
            if len(unsure) <= MAX_EXAMINED_HERE:
                tables: Iterable[pa.Table] = (_pending(*one) for one in arguments)
            else:
                pool = executor()
                tables = [future.result() for future in [pool.submit(_pending, *one) for one in arguments]]
            for shard, pending in zip(chosen, tables, strict=True):
                del self._unsure[shard]
                yield shard, pending.filter(pa.array(pending.column("row").to_numpy() < self._scope(shard)))

    def _cut(self, shard: int, pending: pa.Table) -> list[Unit]:
        self.pending += len(pending)
        size = unit_rows(len(pending), self._max_unit_rows)
        rows = pending.column("row").to_numpy().astype(np.int32)
        earlier = pending.column("earlier")
        has_earlier = earlier.null_count < len(pending)
        return [
            Unit(
                shard,
                rows[start : start + size].copy(),
                tuple(earlier[start : start + size].to_pylist()) if has_earlier else None,
            )
            for start in range(0, len(rows), size)
        ]


def _pending(uri: str, layout: Layout, shard: int, parts: list[str], retry: str) -> pa.Table:
    return pending_rows(open_store(uri), layout, shard, parts, retry)


def commit_task(uri: str, layout: Layout, shard: int, containers: MakeContainers | None) -> Commit:
    """`commit_shard` as a task."""
    return commit_shard(open_store(uri), layout, shard, containers)
