"""Stage statistics of a run: rows, and seconds with and without work, added up in the journal. Pure.

A worker reports each batch that is batch. Everything is a sum, so that any span of a run is a difference of two moments.
The journal's process imports this file, so it imports next to nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

MAX_BATCHES = 20_000
"""Batches of a stage that are known by their first row; a task that is repeated repeats only its last ones."""


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """What a worker reports of a batch: its rows, the id of the first one, and seconds.

    `waited_s` are the seconds without work before the batch. `cpu` and `gpu` are the shares in use, since the batch before,
    of all cores of the actor's node and of its GPUs. They are None for tasks, and where the use is not known.
    """

    stage: str
    first: int
    rows: int
    busy_s: float
    waited_s: float = 0.0
    cpu: float | None = None
    gpu: float | None = None


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """Sums over the batches of a stage; `cpu_s` and `gpu_s` are seconds times the share in use.

    `rows` count once where a batch is repeated because its process died, seconds count as often as they were spent.
    `known_cpu_s` and `known_gpu_s` are the seconds for which a share is known.
    """

    rows: int = 0
    busy_s: float = 0.0
    waited_s: float = 0.0
    cpu_s: float = 0.0
    known_cpu_s: float = 0.0
    gpu_s: float = 0.0
    known_gpu_s: float = 0.0

    def plus(self, batch: BatchStatistics, *, repeated: bool) -> Self:
        """These sums with a batch added."""
        seconds = batch.busy_s + batch.waited_s
        return type(self)(
            self.rows + (0 if repeated else batch.rows),
            self.busy_s + batch.busy_s,
            self.waited_s + batch.waited_s,
            self.cpu_s + (batch.cpu or 0.0) * seconds,
            self.known_cpu_s + (0.0 if batch.cpu is None else seconds),
            self.gpu_s + (batch.gpu or 0.0) * seconds,
            self.known_gpu_s + (0.0 if batch.gpu is None else seconds),
        )

    def since(self, before: Self) -> Self:
        """What was added since an earlier moment."""
        return type(self)(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))


Stages = Mapping[str, StageStatistics]
NO_STATISTICS = StageStatistics()


class Tally:
    """Adds up batches by stage."""

    def __init__(self) -> None:
        self._sums: dict[str, StageStatistics] = {}
        self._seen: dict[str, set[int]] = {}
        self._order: dict[str, deque[int]] = {}

    def add(self, batch: BatchStatistics) -> None:
        """Add a batch; of one that was added before, only the seconds count."""
        seen = self._seen.setdefault(batch.stage, set())
        repeated = batch.first in seen
        self._sums[batch.stage] = self._sums.get(batch.stage, NO_STATISTICS).plus(batch, repeated=repeated)
        if repeated:
            return
        order = self._order.setdefault(batch.stage, deque())
        seen.add(batch.first)
        order.append(batch.first)
        if len(order) > MAX_BATCHES:
            seen.discard(order.popleft())

    def sums(self) -> dict[str, StageStatistics]:
        """The sums so far, of the stages that have done a batch."""
        return dict(self._sums)
