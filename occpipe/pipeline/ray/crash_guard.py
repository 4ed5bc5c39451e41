"""The crash guard: a journal of the images in work shows which image ended its process.

A decoder or a model can crash, or take so much memory that its process is killed. Ray then starts a new process and
repeats the block, for ever. The journal is an actor that outlives the workers. A block whose process died is repeated
image by image, and an image that was in work at `MAX_DEATHS` deaths ends as an error row. The journal also has the request
to stop and the stage statistics. A worker waits for one call a block.

A model may fail on one batch after the other, for example on a broken GPU. Then it gives its block back and ends its actor,
so that another model takes the block: see `CircuitBreaker`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Condition, Lock
from typing import Generic, TypeVar

import pyarrow as pa

from occpipe.core.config_placement import PoolPlacement
from occpipe.core.resources import cpu_use, gpu_use
from occpipe.io.images import ImageError, ImageReason
from occpipe.pipeline.monitoring.stage_statistics import BatchStatistics
from occpipe.pipeline.ray.journal import Journal, JournalHandle
from occpipe.pipeline.ray.log_records import send_records
from occpipe.pipeline.steps import Step
from occpipe.stages.rows import Rows
from occpipe.stages.stage import PoolStage, Setup

T = TypeVar("T")
Work = Callable[[pa.Table], pa.Table]
logger = logging.getLogger(__name__)

ROW_BITS = 20
"""Bits of an image's number that are its place in its shard: a container may have more images than `shard.images`."""
MAX_DEATHS = 3
"""Deaths of its process, the last two of them with it alone, after which an image is not tried again."""


class BrokenModelError(BaseException):
    """A model failed on so many images in a row that it is to blame. It is no Exception, so stages do not catch it."""

    def __init__(self, off: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        super().__init__("a model failed on one image after the other")
        self.off = off


class CircuitBreaker(Generic[T]):
    """A model that raises BrokenModelError once it has failed on each of `limit` images in a row, alone with each.

    A batch on which a model fails is done again in halves, down to each image alone. So one bad image fails alone once,
    and a broken model on every image.
    """

    def __init__(self, model: Callable[..., Sequence[T]], limit: int) -> None:
        self._model, self._limit = model, limit
        self._failed, self._is_on = 0, True

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Let the model fail as often as it does."""
        self._is_on = False
        try:
            yield
        finally:
            self._is_on = True

    def __call__(self, images: Sequence[object], *more: object) -> Sequence[T]:
        try:
            results = self._model(images, *more)
        except Exception:
            self._failed += len(images) == 1
            if self._is_on and self._failed >= self._limit:
                self._failed = 0
                logger.exception("a model failed on %d images in a row", self._limit)
                raise BrokenModelError(self.off) from None
            raise
        self._failed = 0
        return results


class SharedLock:
    """Threads of a process work side by side, or one of them alone."""

    def __init__(self) -> None:
        self._changed, self._shared, self._is_exclusive = Condition(), 0, False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """With other threads, unless one must be alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_exclusive)
            self._shared += 1
        try:
            yield
        finally:
            with self._changed:
                self._shared -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Alone, so that an end of the process is due to this thread."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_exclusive and not self._shared)
            self._is_exclusive = True
        try:
            yield
        finally:
            with self._changed:
                self._is_exclusive = False
                self._changed.notify_all()


class BusyTime:
    """Seconds of an actor with work and without, since the last block that ended; blocks may overlap."""

    def __init__(self) -> None:
        self._lock, self._open, self._counted = Lock(), list[float](), float("nan")

    def begin(self, now: float) -> None:
        """A block is begun."""
        with self._lock:
            self._open.append(now)

    def end(self, begun: float, now: float) -> tuple[float, float]:
        """End the block that was begun at that time: seconds with work, and without."""
        with self._lock:
            first = min(self._open)
            counted = first if math.isnan(self._counted) else self._counted
            self._open.remove(begun)
            self._counted = now
            return max(0.0, now - max(counted, first)), max(0.0, first - counted)


class Guard:
    """A stage with entries in the journal: images in work, and times. Threads may call it at the same time.

    `skippable`: blocks that are not begun when the run stops are left out.
    """

    def __init__(self, name: str, stage: Work, journal: JournalHandle, *, skippable: bool = False) -> None:
        self._name, self._stage, self._journal, self._skippable = name, stage, journal, skippable
        self._lock, self._time = SharedLock(), BusyTime()
        cpu_use()  # from here on
        send_records(journal)

    def __call__(self, batch: pa.Table) -> pa.Table:
        begun = time.monotonic()
        self._time.begin(begun)
        result = self._guarded(batch)
        busy, waited = self._time.end(begun, time.monotonic())
        if len(result):
            done = BatchStatistics(self._name, key_of(batch, 0), len(batch), busy, waited, cpu_use(), gpu_use())
            self._journal.send(Journal.report, done)
        return result

    def _guarded(self, batch: pa.Table) -> pa.Table:
        images = _open_images(batch)
        if not images:
            stopping = self._skippable and self._journal.call(Journal.is_stopping)
            return self._stage(batch.slice(0, 0) if stopping else batch)
        with self._lock.shared():
            begun = self._journal.call(Journal.begin, self._name, images, skippable=self._skippable)
            if begun.stopping:
                return self._stage(batch.slice(0, 0))
            if not any(begun.deaths):
                result = self._run(batch, images)
                self._journal.send(Journal.finish, self._name, images)
                return result
            self._journal.call(Journal.finish, self._name, images)
        return pa.concat_tables([self._alone(batch.slice(row, 1)) for row in range(len(batch))])

    def _run(self, batch: pa.Table, images: list[int]) -> pa.Table:
        try:
            return self._stage(batch)
        except BrokenModelError as error:
            if self._journal.call(Journal.give_back, self._name, images):
                os._exit(1)  # Ray starts a new actor, where there is room for it, and repeats the block
            with error.off():
                return self._stage(batch)

    def _alone(self, row: pa.Table) -> pa.Table:
        images = _open_images(row)
        with self._lock.exclusive():
            deaths = sum(self._journal.call(Journal.begin, self._name, images).deaths)
            if deaths >= MAX_DEATHS:
                rows = Rows(row, self._name)
                logger.error("%s: the process died %d times with image %d in work", self._name, deaths, images[0])
                rows.fail(0, ImageError(ImageReason.CRASHED, f"its process died {deaths} times while it was in work"))
                row = rows.table()
            result = self._run(row, images)
            self._journal.call(Journal.finish, self._name, images)
        return result


@dataclass(frozen=True)
class Timed:
    """A stage of tasks that reports its time to the journal."""

    name: str
    stage: Work
    journal: JournalHandle

    def __call__(self, batch: pa.Table) -> pa.Table:
        send_records(self.journal)
        started = time.monotonic()
        result = self.stage(batch)
        if len(batch):
            first = int(key_of(batch, 0))
            self.journal.send(Journal.report, BatchStatistics(self.name, first, len(batch), time.monotonic() - started))
        return result


class PoolWorker(Guard):
    """An actor of a pool: a stage whose model is behind a circuit breaker."""

    def __init__(self, step: Step, setup: Setup, journal: JournalHandle) -> None:
        (stage,) = step.build(setup).stages
        if isinstance(stage, PoolStage):
            at: PoolPlacement = getattr(setup.config.placement, step.name)
            stage.model = CircuitBreaker(stage.model, setup.config.errors.max_failed_batches * at.batch_size)
        super().__init__(step.name, stage, journal, skippable=step.is_skippable)


def key_of(batch: pa.Table, index: int) -> int:
    """A number for an image: its shard and its place there."""
    return int(batch.column("shard")[index].as_py() << ROW_BITS | batch.column("row")[index].as_py())


def _open_images(batch: pa.Table) -> list[int]:
    shards, rows = batch.column("shard").to_pylist(), batch.column("row").to_pylist()
    return [shards[index] << ROW_BITS | rows[index] for index in Rows(batch, "").open()]
