"""The journal of a run: which images are in work, so that one that ends its process is known by name afterwards.

A decoder or a model can crash, or eat so much memory that the process is killed. Ray then starts the process anew and
repeats the batch, and would do so for ever. The journal is an actor that outlives the workers: a batch whose process
died is repeated image by image, and an image that was in work at `MAX_DEATHS` deaths ends as an error row. It also
carries the wish to stop: what has begun is finished, nothing new is begun; and it adds up what each stage did.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from occpipe.config import Config
from occpipe.figures import BatchDone, StageFigures, Tally
from occpipe.gauges import cpu_use, gpu_use
from occpipe.images import ImageError, ImageReason
from occpipe.rows import Rows
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.segment import SegmentStage

MAX_DEATHS = 3
"""Deaths of its process, the last two of them alone with it, after which an image is not tried again."""

Ask: TypeAlias = Callable[..., Any]
"""Calls a method of the journal, by name, wherever it runs."""


class Journal:
    """What is in work, per stage; no method may be called while another one runs."""

    def __init__(self) -> None:
        self._in_work: set[tuple[str, int]] = set()
        self._deaths: Counter[tuple[str, int]] = Counter()
        self._tally = Tally()
        self._stopping = False

    def begin(self, stage: str, ids: Sequence[int]) -> list[int]:
        """Note that work on images begins; returns, for each, how many processes it has seen die.

        An image that is begun again without having been finished was in work when its process died.
        """
        keys = [(stage, key) for key in ids]
        self._deaths.update(key for key in keys if key in self._in_work)
        self._in_work.update(keys)
        return [self._deaths[key] for key in keys]

    def finish(self, stage: str, ids: Sequence[int]) -> None:
        """Note that work on images has ended, well or not."""
        self._in_work.difference_update((stage, key) for key in ids)

    def report(self, done: BatchDone) -> None:
        """Add what a batch took to the sums of its stage."""
        self._tally.add(done)

    def figures(self) -> dict[str, StageFigures]:
        """What the stages did so far."""
        return self._tally.sums()

    def stop(self) -> None:
        """From now on nothing new is begun."""
        self._stopping = True

    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping


def start_journal() -> Any:
    """The journal as an actor that takes no CPU, on the node of the driver; it ends with the run."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Journal).remote()


def asking(journal: Any) -> Ask:
    """How to ask a journal that is an actor: two calls a batch, about a millisecond each."""
    return lambda method, *arguments: ray.get(getattr(journal, method).remote(*arguments))


def telling(journal: Any) -> Ask:
    """How to tell it something without waiting until it is heard."""
    return lambda method, *arguments: getattr(journal, method).remote(*arguments)


class Guard:
    """A stage of a pool that notes in the journal what it works on, and how long.

    `skips` a batch that it has not begun when the run stops. `tell` is `ask` without an answer.
    """

    def __init__(
        self,
        name: str,
        stage: Callable[[pa.Table], pa.Table],
        ask: Ask,
        tell: Ask | None = None,
        *,
        skips: bool = False,
    ) -> None:
        self._name, self._stage, self._ask, self._skips = name, stage, ask, skips
        self._tell = tell or ask
        self._ended: float | None = None
        cpu_use()  # from here on

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._skips and self._ask("is_stopping"):
            return self._stage(batch.slice(0, 0))
        begun = time.monotonic()
        done = self._guarded(batch)
        ended = time.monotonic()
        if len(batch):
            waited = begun - (begun if self._ended is None else self._ended)
            first = batch.column("image_id")[0].as_py()
            said = BatchDone(self._name, first, len(batch), ended - begun, waited, cpu_use(), gpu_use())
            self._tell("report", said)
        self._ended = ended
        return done

    def _guarded(self, batch: pa.Table) -> pa.Table:
        ids = _open_ids(batch)
        if not any(self._ask("begin", self._name, ids)):
            return self._finished(ids, batch)
        self._ask("finish", self._name, ids)
        return pa.concat_tables([self._alone(batch.slice(row, 1)) for row in range(len(batch))])

    def _alone(self, row: pa.Table) -> pa.Table:
        ids = _open_ids(row)
        deaths = sum(self._ask("begin", self._name, ids))
        if deaths >= MAX_DEATHS:
            rows = Rows(row, self._name)
            rows.fail(0, ImageError(ImageReason.CRASHED, f"its process died {deaths} times while it was in work"))
            row = rows.table()
        return self._finished(ids, row)

    def _finished(self, ids: list[int], rows: pa.Table) -> pa.Table:
        done = self._stage(rows)
        self._ask("finish", self._name, ids)
        return done


@dataclass(frozen=True)
class Timed:
    """A stage of tasks that says how long it worked."""

    name: str
    stage: Callable[[pa.Table], pa.Table]
    journal: Any

    def __call__(self, batch: pa.Table) -> pa.Table:
        begun = time.monotonic()
        done = self.stage(batch)
        if len(done):  # a fetch that is told to stop takes rows and gives none
            first = batch.column("image_id")[0].as_py()
            telling(self.journal)("report", BatchDone(self.name, first, len(done), time.monotonic() - begun))
        return done


@dataclass(frozen=True)
class Stoppable:
    """A fetch that reads nothing more once the run is to stop."""

    fetch: Callable[[pa.Table], pa.Table]
    journal: Any

    def __call__(self, batch: pa.Table) -> pa.Table:
        return self.fetch(batch.slice(0, 0) if asking(self.journal)("is_stopping") else batch)


class GuardedSegment(Guard):
    """Pool A."""

    def __init__(self, config: Config, journal: Any) -> None:
        super().__init__("segment", SegmentStage(config), asking(journal), telling(journal), skips=True)


class GuardedInpaint(Guard):
    """Pool B."""

    def __init__(self, config: Config, journal: Any) -> None:
        super().__init__("inpaint", InpaintStage(config), asking(journal), telling(journal))


def _open_ids(batch: pa.Table) -> list[int]:
    ids: list[int] = batch.column("image_id").to_pylist()
    return [ids[row] for row in Rows(batch, "").open()]
