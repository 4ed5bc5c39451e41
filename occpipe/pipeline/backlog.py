"""What is left to do in each shard, in units for the load tasks; and which shard is ready to be committed.

A shard without a published file and without parts is to be done whole. One with parts, with a marker, or that is to be
tried again, is looked at first: its rows say what is done. All others are done, and nobody reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor

import numpy as np
import pyarrow as pa

from occpipe.dataset.layout import Layout, run_of
from occpipe.dataset.lock import Share
from occpipe.dataset.manifest import ShardInfo
from occpipe.dataset.shards import Commit, commit_shard, list_parts, list_shards, pending_rows
from occpipe.io.storage import Store, open_store
from occpipe.pipeline.job import Unit
from occpipe.pipeline.steps import unit_rows

MAX_UNITS = 4_096
"""Read tasks of one execution of Ray Data: its driver holds some kB for each block until the execution ends."""
LOOKED_AT_ONCE = 64
_FEW = 32
"""Shards that are looked at in this process; more are looked at as tasks."""


class Backlog:
    """The shards of one share of an output; `limit` leaves out all images but the first ones of the manifest."""

    def __init__(
        self, store: Store, layout: Layout, share: Share, retry: str, limit: int | None, most_rows: int
    ) -> None:
        self._store, self._layout, self._share, self._retry = store, layout, share, retry
        self._limit, self._most_rows = limit, most_rows
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
        """Take shards of the manifest in."""
        for shard in shards:
            known = shard.number in self._rows
            self._rows[shard.number] = shard.rows
            if known or not self._share.has(shard.number):
                continue
            if shard.number not in self._published and shard.number not in self._parts:
                self._fresh[shard.number] = None
            elif shard.number in self._open or shard.number in self._parts or self._retry != "none":
                self._unsure[shard.number] = self._retry

    def look_again(self, shards: Iterable[int]) -> None:
        """Shards of which something has changed are looked at in the next execution."""
        for shard in shards:
            if self._share.has(shard) and shard not in self._fresh:
                self._unsure.setdefault(shard, "none")

    @property
    def has_work(self) -> bool:
        """Whether any shard is left to look at or to do."""
        return bool(self._fresh or self._unsure)

    @property
    def has_fresh(self) -> bool:
        """Whether there is a shard of which nothing is done."""
        return bool(self._fresh)

    def take(self, executor: Callable[[], Executor], commit: Callable[[int], None]) -> list[Unit]:
        """Units for one execution; shards in which nothing is left to do but the commit are given to `commit`."""
        units: list[Unit] = []
        for shard, pending in self._look(executor):
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
        """Count written rows of a shard; whether they were its last ones."""
        self._left[shard] -= rows
        self._written.add(shard)
        return self._left[shard] <= 0

    def unfinished(self) -> list[int]:
        """The shards of which some rows are written and some are left: those of a run that was stopped."""
        return [shard for shard in sorted(self._written) if self._left[shard] > 0]

    def commit(self, shard: int) -> Commit:
        """Publish what a shard has, in this process."""
        return commit_shard(self._store, self._layout, shard)

    def committed(self, commit: Commit, *, stopped: bool) -> None:
        """Take in what a commit left: a shard in which images are missing is looked at again, once."""
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

    def _look(self, executor: Callable[[], Executor]) -> Iterator[tuple[int, pa.Table]]:
        """The pending rows of the shards that are to be looked at, some shards at once."""
        unsure = sorted(self._unsure)
        for start in range(0, len(unsure), LOOKED_AT_ONCE):
            chosen = unsure[start : start + LOOKED_AT_ONCE]
            arguments = [
                (self._store.uri, self._layout, shard, self._parts.get(shard, []), self._unsure[shard])
                for shard in chosen
            ]
            if len(unsure) <= _FEW:
                found: Iterable[pa.Table] = (_pending(*one) for one in arguments)
            else:
                pool = executor()
                found = [future.result() for future in [pool.submit(_pending, *one) for one in arguments]]
            for shard, pending in zip(chosen, found, strict=True):
                del self._unsure[shard]
                yield shard, pending.filter(pa.array(pending.column("row").to_numpy() < self._scope(shard)))

    def _cut(self, shard: int, pending: pa.Table) -> list[Unit]:
        self.pending += len(pending)
        size = unit_rows(len(pending), self._most_rows)
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


def commit_task(uri: str, layout: Layout, shard: int) -> Commit:
    """`commit_shard` as a task."""
    return commit_shard(open_store(uri), layout, shard)
