"""What the stages of a run do: rows, seconds at work and without work, added up where the work is done. Pure.

A worker says what a batch took when the batch is done. Everything is a sum, so that any span of a run is a difference of
two moments. What is read off such a span is a `Pace`: images/s, how much of its time a pool's actor has work, and how
many rows wait before a stage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

from occpipe.pipeline.steps import POOLS, STAGES

REMEMBERED = 20_000
"""Batches of a stage after which one that comes again counts as new: a task that is repeated repeats its last ones."""


@dataclass(frozen=True, slots=True)
class BatchDone:
    """What a worker says of a batch: its rows (known by the id of the first one) and seconds.

    `waited_s` is what an actor had no work before it. `cpu` and `gpu` are the shares in use, since the batch before, of
    all cores of the actor's node and of its GPUs; None for tasks, and where there is no GPU or nobody who knows its use.
    """

    stage: str
    first: int
    rows: int
    busy_s: float
    waited_s: float = 0.0
    cpu: float | None = None
    gpu: float | None = None


@dataclass(frozen=True, slots=True)
class StageFigures:
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

    def plus(self, done: BatchDone, *, repeated: bool) -> Self:
        """These sums with a batch added."""
        seconds = done.busy_s + done.waited_s
        return type(self)(
            self.rows + (0 if repeated else done.rows),
            self.busy_s + done.busy_s,
            self.waited_s + done.waited_s,
            self.cpu_s + (done.cpu or 0.0) * seconds,
            self.known_cpu_s + (0.0 if done.cpu is None else seconds),
            self.gpu_s + (done.gpu or 0.0) * seconds,
            self.known_gpu_s + (0.0 if done.gpu is None else seconds),
        )

    def since(self, before: Self) -> Self:
        """What was added since an earlier moment."""
        return type(self)(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))


Stages = Mapping[str, StageFigures]
NONE = StageFigures()


class Tally:
    """Adds up what workers say."""

    def __init__(self) -> None:
        self._sums: dict[str, StageFigures] = {}
        self._seen: dict[str, set[int]] = {}
        self._order: dict[str, deque[int]] = {}

    def add(self, done: BatchDone) -> None:
        """Add a batch; one that was added before costs seconds only."""
        seen = self._seen.setdefault(done.stage, set())
        repeated = done.first in seen
        self._sums[done.stage] = self._sums.get(done.stage, NONE).plus(done, repeated=repeated)
        if repeated:
            return
        order = self._order.setdefault(done.stage, deque())
        seen.add(done.first)
        order.append(done.first)
        if len(order) > REMEMBERED:
            seen.discard(order.popleft())

    def sums(self) -> dict[str, StageFigures]:
        """The sums so far, of the stages that have done anything."""
        return dict(self._sums)


@dataclass(frozen=True, slots=True)
class Pace:
    """A stage over a span of a run.

    `at_work` is the mean number of workers at work. `busy` is the share of its time that an actor of a pool has work, None
    for tasks, which exist only for their work, and where no batch ended. `queue` are rows that wait for the stage or are in
    it, at the span's end. `cpu` and `gpu` are shares in use, None where they are not known.
    """

    images_per_s: float
    at_work: float
    busy: float | None
    queue: int
    cpu: float | None
    gpu: float | None


def paces(before: Stages, now: Stages, seconds: float, total: int, stages: Sequence[str] = STAGES) -> dict[str, Pace]:
    """The pace of each stage, in order, between two moments that lie `seconds` apart, in a run over `total` images."""
    found, arrived = {}, total
    for stage in stages:
        own = now.get(stage, NONE)
        span = own.since(before.get(stage, NONE))
        at_all = span.busy_s + span.waited_s
        found[stage] = Pace(
            images_per_s=span.rows / seconds if seconds > 0 else 0.0,
            at_work=span.busy_s / seconds if seconds > 0 else 0.0,
            busy=span.busy_s / at_all if stage in POOLS and at_all else None,
            queue=max(0, arrived - own.rows),
            cpu=span.cpu_s / span.known_cpu_s if span.known_cpu_s else None,
            gpu=span.gpu_s / span.known_gpu_s if span.known_gpu_s else None,
        )
        arrived = own.rows
    return found
