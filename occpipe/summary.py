"""What a run says of itself: progress while it goes on, and what it did at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from occpipe.figures import Pace, Stages
from occpipe.types import Status


@dataclass(slots=True)
class Made:
    """The rows of a run so far: how many of each status and reason, and per reason an image that it closed, with what
    was wrong. `copied` of those cleaned are pictures of an earlier run; `over_all` is, at the end, the last tick, with
    paces from the first image of the first pool on, and without Ray from the start on; `unwatched` is what the one who
    was told of ticks raised.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    copied: int = 0
    over_all: Tick | None = None
    unwatched: Exception | None = None
    _lock: Lock = field(default_factory=Lock)

    def add(self, rows: pa.Table) -> None:
        """Count thin rows, as the sink returns them."""
        closed = rows.filter(pc.is_valid(rows.column("reason"))).to_pylist()
        with self._lock:
            self.statuses.update(rows.column("status").to_pylist())
            self.reasons.update(row["reason"] for row in closed)
        if "copied" in rows.column_names:
            written = rows.filter(pc.equal(rows.column("status"), Status.CLEANED))  # the write of a copy may fail
            self.copied += pc.sum(written.column("copied")).as_py() or 0
        for row in closed:
            self.examples.setdefault(row["reason"], printable(f"{row['uri']}: {row['error']['message']}"))

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """Statuses and reasons at one moment, for whoever looks from another thread."""
        with self._lock:
            return self.statuses.copy(), self.reasons.copy()


@dataclass(frozen=True, slots=True)
class Tick:
    """Progress: how many rows ended with each status and reason so far, of how many to do; seconds since the start.

    `stages` are sums since the start, `paces` what was read off the last half minute, and `limit` says which stage limits
    the run and what to turn, where that can be told.
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
    """What a run did: the rows it made, images done before, seconds, and the published manifest.

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
