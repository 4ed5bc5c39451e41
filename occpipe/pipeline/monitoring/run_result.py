"""The progress of a run in snapshots, and its result."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from occpipe.core.types import Status
from occpipe.dataset.shards import FAULTS
from occpipe.dataset.sums import OutputSums
from occpipe.pipeline.monitoring.stage_statistics import Stages
from occpipe.pipeline.monitoring.utilization import Utilization

BLOCK = pa.schema([("shard", pa.int32()), ("rows", pa.int32()), ("summary", pa.string())])
"""What the driver gets of a block of written rows; `summary` is JSON."""


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
    summary: BlockSummary = {"statuses": statuses, "reasons": reasons, "examples": examples, "copied": copied}
    return pa.table([[shard], [len(rows)], [json.dumps(summary)]], schema=BLOCK)


class BlockSummary(TypedDict):
    """Rows of a block by status and reason, one image with its error for each reason, and pictures of an earlier run."""

    statuses: dict[str, int]
    reasons: dict[str, int]
    examples: dict[str, str]
    copied: int


@dataclass(slots=True)
class RunCounts:
    """The rows of a run so far: how many of each status and reason, and per reason one image with its error.

    `copied` of the cleaned ones are pictures of an earlier run. `final` is the last snapshot; its utilization begins with
    the first image of the first pool. `progress_error` is the error that `on_progress` raised.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    copied: int = 0
    final: ProgressSnapshot | None = None
    progress_error: Exception | None = None
    _lock: Lock = field(default_factory=Lock)

    def add(self, summary: BlockSummary) -> None:
        """Count a block by its `block_summary`."""
        with self._lock:
            self.statuses.update(summary["statuses"])
            self.reasons.update(summary["reasons"])
        self.copied += summary["copied"]
        for reason, example in summary["examples"].items():
            self.examples.setdefault(reason, example)

    def copy(self) -> tuple[Counter[str], Counter[str]]:
        """Statuses and reasons at one moment, for a reader in another thread."""
        with self._lock:
            return self.statuses.copy(), self.reasons.copy()

    @property
    def failed(self) -> int:
        """Rows that failed for a reason that may pass."""
        return sum(self.reasons[reason] for reason in FAULTS)


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """Progress: how many rows ended with each status and reason so far, of how many to do; seconds since the start.

    `stages` are sums since the start, and `utilization` is that of the last half minute. `limit` is a sentence on the stage
    that limits the run and the key to change, where that is known. `total` grows while the corpus is being listed.
    """

    statuses: Counter[str]
    total: int
    seconds: float
    reasons: Counter[str] = field(default_factory=Counter)
    stages: Stages = field(default_factory=dict)
    utilization: Mapping[str, Utilization] = field(default_factory=dict)
    limit: str | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did: its rows, images done before, seconds, and the published sums.

    `stopped`: the run was stopped, and images are left.
    """

    counts: RunCounts
    done_before: int
    seconds: float
    manifest: OutputSums
    stopped: bool = False

    @property
    def statuses(self) -> Counter[str]:
        """Rows of this run, by status."""
        return self.counts.statuses

    @property
    def examples(self) -> dict[str, str]:
        """Per reason, one image with its error."""
        return self.counts.examples

    @property
    def final(self) -> ProgressSnapshot | None:
        """The last snapshot, with utilization over the whole run; None where nothing was to do."""
        return self.counts.final


def printable(text: str) -> str:
    """A name without control characters, which could steer a terminal: names come from strangers."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
