"""What heads a page: counts over all rows, in one streamed pass over narrow columns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from occpipe.types import Reason, Status, Verdict

COLUMNS = [
    *("image_id", "status", "reason", "removed"),
    *(f"objects.list.element.{name}" for name in ("label", "relation", "verdict", "reason")),
]
"""What is read of a row: no masks, which make up most of a file."""

BINS = 50
"""Bars of the relation histogram, over [0, 1]."""

MOST_NAMES = 40
"""Names in a list of a page, the most frequent ones; the rest is summed."""


def _bars() -> NDArray[np.int64]:
    return np.zeros(BINS, np.int64)


@dataclass(slots=True)
class Figures:
    """Counts of the rows that were added so far; `area` is the sum of the shares of the images that were filled."""

    status: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    area: float = 0.0
    gone: NDArray[np.int64] = field(default_factory=_bars)
    stayed: NDArray[np.int64] = field(default_factory=_bars)
    undecided: NDArray[np.int64] = field(default_factory=_bars)

    def add(self, rows: pa.Table) -> None:
        """Count rows with the columns of `COLUMNS`."""
        self.status += _counts(rows.column("status"))
        self.failures += _counts(rows.column("reason"))
        cleaned = pc.equal(rows.column("status"), Status.CLEANED)
        self.area += pc.sum(rows.column("removed").filter(cleaned)).as_py() or 0.0
        things = things_of(rows)
        is_removed = pc.equal(things["verdict"], Verdict.REMOVE)
        self.reasons += _counts(things["reason"])
        self.seen += _counts(things["label"])
        self.removed += _counts(things["label"].filter(is_removed))
        reason = things["reason"].to_numpy(zero_copy_only=False)
        relation = things["relation"].to_numpy(zero_copy_only=False)
        unrelated, related = reason == Reason.UNRELATED, reason == Reason.RELATED
        for bars, which in ((self.gone, unrelated), (self.stayed, related), (self.undecided, ~(unrelated | related))):
            bars += np.histogram(relation[which], BINS, (0.0, 1.0))[0]

    def summary(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "images": self.status.total(),
            "status": {status: self.status[status] for status in Status},
            "failures": _most(self.failures),
            "things": self.seen.total(),
            "gone": self.removed.total(),
            "reasons": _most(self.reasons),
            "removed": _most(self.removed),
            "seen": _most(self.seen),
            "area": self.area / max(1, self.status[Status.CLEANED]),
            "histogram": {
                "unrelated": self.gone.tolist(),
                "related": self.stayed.tolist(),
                "other": self.undecided.tolist(),
            },
        }


def things_of(rows: pa.Table) -> dict[str, pa.Array]:
    """The columns of all objects of the rows, flattened, and `row`: the place of the row that each is of."""
    objects = rows.column("objects").combine_chunks()
    if isinstance(objects, pa.ChunkedArray):  # a table without rows has no chunk to combine
        objects = pa.concat_arrays(objects.chunks) if objects.num_chunks else pa.array([], objects.type)
    flat = objects.flatten()
    columns = {flat.type.field(n).name: pc.struct_field(flat, [n]) for n in range(flat.type.num_fields)}
    return columns | {"row": pc.list_parent_indices(objects)}


def _counts(values: pa.Array) -> Counter[str]:
    counted = pc.value_counts(values.drop_null()).to_pylist()
    return Counter({item["values"]: item["counts"] for item in counted})


def _most(counts: Counter[str]) -> list[list[Any]]:
    """The most frequent names with their counts, ties by name; then the rest as one, without a name."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in ranked[MOST_NAMES:])
    return [[name[:100], count] for name, count in ranked[:MOST_NAMES]] + ([[None, rest]] if rest else [])
