"""A bounded sample of the rows that are worth a look, from any number of rows.

One pass over narrow columns keeps the best places of each kind, some kB each. Only the rows at these places are read
whole. Kinds take turns, so that none crowds out another, and classes take turns within the removals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import cycle, zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from occpipe.core.types import Reason, Status, Verdict

Ranks = NDArray[np.float64]

COLUMNS = [
    *("image_id", "status", "reason", "removed"),
    *(f"objects.list.element.{name}" for name in ("label", "relation", "verdict", "reason")),
]
"""The columns that are read: no masks, which make up most of a file."""

REMOVED, PLANNED, NEAR, LARGE, MANY, FAILED, SKIPPED, KEPT = (
    *("removed", "would be removed", "near the cut", "large area", "many things"),
    *("error", "skipped", "unchanged"),
)
_GONE = (REMOVED, PLANNED)
_TURNS = (*_GONE, NEAR, *_GONE, LARGE, *_GONE, KEPT, *_GONE, FAILED, *_GONE, NEAR, KEPT, MANY, SKIPPED)
MAX_NAMES = 300
"""Classes and reasons of which places are kept; a file from strangers may name any number."""
MANY_THINGS = 8
"""An image with so many things has many."""


class Places:
    """The `count` places with the lowest rank so far, ties by place."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rank = np.empty(0)
        self._place = np.empty(0, np.int64)

    def offer(self, rank: Ranks, place: NDArray[np.int64]) -> None:
        """Take in places with their ranks; NaN is never kept."""
        fine = ~np.isnan(rank)
        ranks, places = np.append(self._rank, rank[fine]), np.append(self._place, place[fine])
        best = np.lexsort((places, ranks))[: self._count]
        self._rank, self._place = ranks[best], places[best]

    def __iter__(self) -> Iterator[int]:
        return iter(self._place.tolist())


class Sampler:
    """Takes all rows, table by table, and chooses at most `count` places, each with what it is an example of.

    `cut` is the relation below which things were removed, None where it is unknown. `rated` leaves out what a rater cannot
    judge: failures, and photos without things.
    """

    def __init__(self, cut: float | None, count: int, *, rated: bool = False) -> None:
        self._cut, self._count, self._rated = cut, count, rated
        self._rows = 0
        self._kinds: dict[str, dict[str, Places]] = {kind: {} for kind in _TURNS}

    def add(self, rows: pa.Table) -> None:
        """Take rows with the columns of `COLUMNS`, in the order in which `rows.read_rows` counts them."""
        place = self._rows + np.arange(len(rows), dtype=np.int64)
        self._rows += len(rows)
        # ids are hashes, in rising order: turned into numbers without an order they draw evenly, the same in each call
        chance = (rows.column("image_id").to_numpy().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) / 2.0**64
        status = rows.column("status").to_numpy()
        removed = rows.column("removed").to_numpy().astype(np.float64)
        things = {name: column.to_numpy(zero_copy_only=False) for name, column in _things_of(rows).items()}
        of, labels = things["row"], things["label"]
        scanned = status == Status.SCANNED
        gone = things["verdict"] == Verdict.REMOVE
        for kind, which in ((REMOVED, gone & ~scanned[of]), (PLANNED, gone & scanned[of])):
            self._offer_named(kind, labels[which], chance[of[which]], place[of[which]])
        if self._cut is not None:
            by_relation = (things["reason"] == Reason.UNRELATED) | (things["reason"] == Reason.RELATED)
            distance = np.abs(things["relation"][by_relation].astype(np.float64) - self._cut)
            self._offer(NEAR, "", distance, place[of[by_relation]])
        filled = scanned | (status == Status.CLEANED)
        self._offer(LARGE, "", -removed[filled], place[filled])
        number = np.bincount(of, minlength=len(rows)).astype(np.float64)
        self._offer(MANY, "", -number[number >= MANY_THINGS], place[number >= MANY_THINGS])
        kept = (status == Status.UNCHANGED) & ((number > 0) | (not self._rated))
        self._offer(KEPT, "", chance[kept], place[kept])
        if self._rated:
            return
        why = rows.column("reason").to_numpy()
        for kind, which in ((FAILED, status == Status.ERROR), (SKIPPED, status == Status.SKIPPED)):
            self._offer_named(kind, why[which], chance[which], place[which])

    def chosen(self) -> dict[int, list[str]]:
        """Places, best first, with what each shows, such as `removed: cat`."""
        queues = {kind: deque(_in_turns(kind, places)) for kind, places in self._kinds.items()}
        sample: dict[int, list[str]] = {}
        for kind in cycle(_TURNS):
            if len(sample) >= self._count or not any(queues.values()):
                break
            while queues[kind]:
                place, what = queues[kind].popleft()
                is_new = place not in sample
                if what not in (shows := sample.setdefault(place, [])):
                    shows.append(what)
                if is_new:
                    break
        return sample

    def _offer(self, kind: str, name: str, rank: Ranks, place: NDArray[np.int64]) -> None:
        names = self._kinds[kind]
        if len(rank) and (name in names or len(names) < MAX_NAMES):
            names.setdefault(name, Places(self._count)).offer(rank, place)

    def _offer_named(self, kind: str, names: NDArray[np.object_], rank: Ranks, place: NDArray[np.int64]) -> None:
        unique, which = np.unique(names.astype(str), return_inverse=True)
        for number, name in enumerate(unique.tolist()):
            self._offer(kind, name, rank[which == number], place[which == number])


def _in_turns(kind: str, places: dict[str, Places]) -> Iterator[tuple[int, str]]:
    """The best place of each name, then the second of each, with what it shows."""
    names = sorted(places)
    for tier in zip_longest(*(places[name] for name in names)):
        for name, place in zip(names, tier, strict=True):
            if place is not None:
                yield place, f"{kind}: {name}" if name else kind


def _things_of(rows: pa.Table) -> dict[str, pa.Array]:
    """The columns of all objects of the rows, flattened, and `row`: the place of the row that each is of."""
    objects = rows.column("objects").combine_chunks()
    if isinstance(objects, pa.ChunkedArray):  # a table without rows has no chunk to combine
        objects = pa.concat_arrays(objects.chunks) if objects.num_chunks else pa.array([], objects.type)
    flat = objects.flatten()
    columns = {flat.type.field(n).name: pc.struct_field(flat, [n]) for n in range(flat.type.num_fields)}
    return columns | {"row": pc.list_parent_indices(objects)}
