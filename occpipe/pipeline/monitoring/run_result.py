"""What a run says of itself: progress while it goes on, and what it did at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from occpipe.core.types import Status
from occpipe.dataset.shards import FAULTS
from occpipe.pipeline.monitoring.stage_statistics import Pace, Stages

BLOCK = pa.schema([("shard", pa.int32()), ("rows", pa.int32()), ("summary", pa.string())])
"""What the driver hears of a block of written rows; `summary` is JSON."""


def block_summary(shard: int, rows: pa.Table) -> pa.Table:
    """One row of `BLOCK` for written rows of a shard: counts by status and reason, and an image for each reason."""
    statuses, reasons = Counter(rows.column("status").to_pylist()), Counter[str]()
    examples: dict[str, str] = {}
    for row in rows.filter(pc.is_valid(rows.column("reason"))).select(["uri", "reason", "error"]).to_pylist():
        reasons[row["reason"]] += 1
        examples.setdefault(row["reason"], printable(f"{row['uri']}: {row['error']['message']}"))
    copied = 0
    if "copied" in rows.column_names:
        cleaned = pc.equal(rows.column("status"), Status.CLEANED)  # the write of a copy may fail
        copied = pc.sum(pc.and_(cleaned, pc.fill_null(rows.column("copied"), False))).as_py() or 0
    summary = {"statuses": statuses, "reasons": reasons, "examples": examples, "copied": copied}
    return pa.table([[shard], [len(rows)], [json.dumps(summary)]], schema=BLOCK)


@dataclass(slots=True)
class Made:
    """The rows of a run so far: how many of each status and reason, and per reason an image that it closed, with what
    was wrong. `copied` of those cleaned are pictures of an earlier run; `over_all` is, at the end, the last tick, with
    paces from the first image of the first pool on; `unwatched` is what the one who was told of ticks raised.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    copied: int = 0
    over_all: Tick | None = None
    unwatched: Exception | None = None
    _lock: Lock = field(default_factory=Lock)

    def add(self, summary: Mapping[str, Any]) -> None:
        """Count a block, as `block_summary` tells of it."""
        with self._lock:
            self.statuses.update(summary["statuses"])
            self.reasons.update(summary["reasons"])
        self.copied += summary["copied"]
        for reason, example in summary["examples"].items():
            self.examples.setdefault(reason, example)

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """Statuses and reasons at one moment, for whoever looks from another thread."""
        with self._lock:
            return self.statuses.copy(), self.reasons.copy()

    @property
    def failed(self) -> int:
        """Rows that failed for a reason that may pass."""
        return sum(self.reasons[reason] for reason in FAULTS)


@dataclass(frozen=True, slots=True)
class Tick:
    """Progress: how many rows ended with each status and reason so far, of how many to do; seconds since the start.

    `stages` are sums since the start, `paces` what was read off the last half minute, and `limit` says which stage limits
    the run and what to turn, where that can be told. While the corpus is being listed, `total` grows.
    """

    statuses: Counter[str]
    total: int
    seconds: float
    reasons: Counter[str] = field(default_factory=Counter)
    stages: Stages = field(default_factory=dict)
    paces: Mapping[str, Pace] = field(default_factory=dict)
    limit: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did: the rows it made, images done before, seconds, and the published sums.

    `stopped` is whether images are left because the run was asked to stop.
    """

    made: Made
    done_before: int
    seconds: float
    manifest: dict[str, Any]
    stopped: bool = False

    @property
    def statuses(self) -> Counter[str]:
        """Rows it made, by status."""
        return self.made.statuses

    @property
    def examples(self) -> dict[str, str]:
        """Per reason, one of the images that it closes and what was wrong with it."""
        return self.made.examples

    @property
    def over_all(self) -> Tick | None:
        """Its last tick, with paces over all; None where it had nothing to do."""
        return self.made.over_all


def printable(text: str) -> str:
    """Names come from strangers, and may hold what steers a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
