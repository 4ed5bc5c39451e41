"""What a run says of itself: progress while it goes on, and what it did at the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(slots=True)
class Made:
    """The rows of a run so far: how many of each status, and per reason an image that it closed, with what was wrong."""

    statuses: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """Count thin rows, as the sink returns them."""
        self.statuses.update(rows.column("status").to_pylist())
        for row in rows.filter(pc.is_valid(rows.column("reason"))).to_pylist():
            self.examples.setdefault(row["reason"], printable(f"{row['uri']}: {row['error']['message']}"))


@dataclass(frozen=True, slots=True)
class Tick:
    """Progress: how many rows ended with each status so far, of how many to do."""

    statuses: Counter[str]
    total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did: rows it made by status, images done before, seconds, and the published manifest.

    `examples` are, per reason, one of the images that it closes and what was wrong with it; `stopped` is whether images
    are left because the run was asked to stop.
    """

    statuses: Counter[str]
    examples: dict[str, str]
    done_before: int
    seconds: float
    manifest: dict[str, Any]
    stopped: bool = False


def printable(text: str) -> str:
    """Names come from strangers, and may hold what steers a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
