"""The crash guard: a journal of the images in work, so that one that ends its process is known by name afterwards.

A decoder or a model can crash, or take so much memory that its process is killed. Ray then starts the process anew and
repeats the block, and would do so for ever. The journal is an actor that outlives the workers. A block whose process died
is repeated image by image, and an image that was in work at `MAX_DEATHS` deaths ends as an error row. The journal also
carries the wish to stop, and adds up what each stage did. It costs one call a block that somebody waits for.

A model that fails on one batch after the other, on a broken GPU for one, gives its block back and ends its actor, so that
the block meets another model: see `Breaker`.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Condition, Lock
from typing import Any, Generic, TypeVar

import pyarrow as pa

from occpipe.core.config import Config
from occpipe.core.resources import cpu_use, gpu_use
from occpipe.io.images import ImageError, ImageReason
from occpipe.pipeline.job import Stage
from occpipe.pipeline.monitoring.stage_statistics import BatchDone
from occpipe.pipeline.ray.journal import JournalHandle
from occpipe.stages.rows import Rows

T = TypeVar("T")

MAX_DEATHS = 3
"""Deaths of its process, the last two of them alone with it, after which an image is not tried again."""


class BrokenModelError(BaseException):
    """A model failed on so many images in a row that it is to blame. It is no Exception, so stages do not catch it."""

    def __init__(self, breaker: Breaker[Any]) -> None:
        super().__init__("a model failed on one image after the other")
        self.breaker = breaker


class Breaker(Generic[T]):
    """A model that raises BrokenModelError once it has failed on each of `limit` images in a row, alone with each.

    A batch on which a model fails is done again in halves, down to each image alone. So one bad image fails alone once,
    and a broken model on every image.
    """

    def __init__(self, model: Callable[..., list[T]], limit: int) -> None:
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

    def __call__(self, images: Sequence[Any], *more: Any) -> list[T]:
        try:
            results = self._model(images, *more)
        except Exception:
            self._failed += len(images) == 1
            if self._is_on and self._failed >= self._limit:
                self._failed = 0
                raise BrokenModelError(self) from None
            raise
        self._failed = 0
        return results


class Turns:
    """Threads of a process work side by side, or one of them alone."""

    def __init__(self) -> None:
        self._changed, self._together, self._is_alone = Condition(), 0, False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """With others, but with none that must be alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """With nobody else, so that it is known who ended the process."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and not self._together)
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


class WorkTime:
    """When an actor had work, where blocks overlap: seconds with work and without, since the last block that ended."""

    def __init__(self) -> None:
        self._lock, self._open, self._counted = Lock(), list[float](), float("nan")

    def begin(self, now: float) -> None:
        """A block is begun."""
        with self._lock:
            self._open.append(now)

    def end(self, begun: float, now: float) -> tuple[float, float]:
        """The block that was begun then has ended: seconds with work, and without."""
        with self._lock:
            first = min(self._open)
            counted = first if math.isnan(self._counted) else self._counted
            self._open.remove(begun)
            self._counted = now
            return max(0.0, now - max(counted, first)), max(0.0, first - counted)


class Guard:
    """A stage that notes in the journal what it works on, and how long. Threads may call it at the same time.

    `skippable`: a block that is not begun when the run stops is passed over.
    """

    def __init__(self, name: str, stage: Stage, journal: JournalHandle, *, skippable: bool = False) -> None:
        self._name, self._stage, self._journal, self._skippable = name, stage, journal, skippable
        self._turns, self._time = Turns(), WorkTime()
        cpu_use()  # from here on

    def __call__(self, batch: pa.Table) -> pa.Table:
        begun = time.monotonic()
        self._time.begin(begun)
        result = self._guarded(batch)
        busy, waited = self._time.end(begun, time.monotonic())
        if len(result):
            done = BatchDone(self._name, key_of(batch, 0), len(batch), busy, waited, cpu_use(), gpu_use())
            self._journal.tell("report", done)
        return result

    def _guarded(self, batch: pa.Table) -> pa.Table:
        images = _open_images(batch)
        if not images:
            stopping = self._skippable and self._journal.ask("is_stopping")
            return self._stage(batch.slice(0, 0) if stopping else batch)
        with self._turns.together():
            begun = self._journal.ask("begin", self._name, images, skippable=self._skippable)
            if begun.stopping:
                return self._stage(batch.slice(0, 0))
            if not any(begun.deaths):
                result = self._run(batch, images)
                self._journal.tell("finish", self._name, images)
                return result
            self._journal.ask("finish", self._name, images)
        return pa.concat_tables([self._alone(batch.slice(row, 1)) for row in range(len(batch))])

    def _run(self, batch: pa.Table, images: list[int]) -> pa.Table:
        try:
            return self._stage(batch)
        except BrokenModelError as error:
            if self._journal.ask("give_back", self._name, images):
                os._exit(1)  # Ray starts the actor anew, where there is room for it, and repeats the block
            with error.breaker.off():
                return self._stage(batch)

    def _alone(self, row: pa.Table) -> pa.Table:
        images = _open_images(row)
        with self._turns.alone():
            deaths = sum(self._journal.ask("begin", self._name, images).deaths)
            if deaths >= MAX_DEATHS:
                rows = Rows(row, self._name)
                rows.fail(0, ImageError(ImageReason.CRASHED, f"its process died {deaths} times while it was in work"))
                row = rows.table()
            result = self._run(row, images)
            self._journal.ask("finish", self._name, images)
        return result


@dataclass(frozen=True)
class Timed:
    """A stage of tasks that reports how long it worked."""

    name: str
    stage: Stage
    journal: JournalHandle

    def __call__(self, batch: pa.Table) -> pa.Table:
        started = time.monotonic()
        result = self.stage(batch)
        if len(batch):
            first = int(key_of(batch, 0))
            self.journal.tell("report", BatchDone(self.name, first, len(batch), time.monotonic() - started))
        return result


class GuardedSegment(Guard):
    """Pool A."""

    def __init__(self, config: Config, journal: JournalHandle) -> None:
        from occpipe.models.loading import load_segmenter, set_threads
        from occpipe.stages.segment import SegmentStage

        at = config.placement.segment
        threads = set_threads(at.threads)
        limit = config.errors.max_failed_batches * at.batch_size
        model = Breaker(load_segmenter(config, workers=threads), limit)
        super().__init__("segment", SegmentStage(config, model), journal, skippable=True)


class GuardedInpaint(Guard):
    """Pool B."""

    def __init__(self, config: Config, root: str, journal: JournalHandle) -> None:
        from occpipe.stages.inpaint import InpaintStage

        stage = InpaintStage(config, root)
        limit = config.errors.max_failed_batches * config.placement.inpaint.batch_size
        stage.fill = Breaker(stage.fill, limit)
        super().__init__("inpaint", stage, journal)


def key_of(batch: pa.Table, index: int) -> int:
    """A number for an image: its shard and its place there."""
    return int(batch.column("shard")[index].as_py() << 16 | batch.column("row")[index].as_py())


def _open_images(batch: pa.Table) -> list[int]:
    shards, rows = batch.column("shard").to_pylist(), batch.column("row").to_pylist()
    return [shards[index] << 16 | rows[index] for index in Rows(batch, "").open()]
