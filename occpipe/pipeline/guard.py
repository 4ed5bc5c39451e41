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
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa

from occpipe.config import Config
from occpipe.figures import BatchDone
from occpipe.gauges import cpu_use, gpu_use
from occpipe.images import ImageError, ImageReason
from occpipe.pipeline.job import Stage
from occpipe.pipeline.journal import JournalHandle
from occpipe.rows import Rows

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


class Guard:
    """A stage that notes in the journal what it works on, and how long.

    `skippable`: a block that is not begun when the run stops is passed over.
    """

    def __init__(self, name: str, stage: Stage, journal: JournalHandle, *, skippable: bool = False) -> None:
        self._name, self._stage, self._journal, self._skippable = name, stage, journal, skippable
        self._ended: float | None = None
        cpu_use()  # from here on

    def __call__(self, batch: pa.Table) -> pa.Table:
        started = time.monotonic()
        images = _open_images(batch)
        if not images:
            stopping = self._skippable and self._journal.ask("is_stopping")
            result = self._stage(batch.slice(0, 0) if stopping else batch)
        else:
            begun = self._journal.ask("begin", self._name, images, skippable=self._skippable)
            if begun.stopping:
                return self._stage(batch.slice(0, 0))
            if any(begun.deaths):
                self._journal.ask("finish", self._name, images)
                result = pa.concat_tables([self._alone(batch.slice(row, 1)) for row in range(len(batch))])
            else:
                result = self._run(batch, images)
                self._journal.tell("finish", self._name, images)
        ended = time.monotonic()
        if len(batch):
            waited = started - (started if self._ended is None else self._ended)
            first = int(key_of(batch, 0))
            done = BatchDone(self._name, first, len(batch), ended - started, waited, cpu_use(), gpu_use())
            self._journal.tell("report", done)
        self._ended = ended
        return result

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
        from occpipe.models import load_segmenter, set_threads
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
