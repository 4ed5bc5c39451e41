"""The journal of a run: which images are in work, so that one that ends its process is known by name afterwards.

A decoder or a model can crash, or eat so much memory that the process is killed. Ray then starts the process anew and
repeats the batch, and would do so for ever. The journal is an actor that outlives the workers: a batch whose process
died is repeated image by image, and an image that was in work at `MAX_DEATHS` deaths ends as an error row. It also
carries the wish to stop: what has begun is finished, nothing new is begun.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, TypeAlias

import pyarrow as pa

from occpipe.config import Config
from occpipe.images import ImageError, ImageReason
from occpipe.rows import Rows
from occpipe.stages.fetch import Fetch
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.segment import SegmentStage

MAX_DEATHS = 3
"""Deaths of its process, the last two of them alone with it, after which an image is not tried again."""

_POLL_S = 0.5

Ask: TypeAlias = Callable[..., Any]
"""Calls a method of the journal, by name, wherever it runs."""


class Journal:
    """What is in work, per stage; no method may be called while another one runs."""

    def __init__(self) -> None:
        self._in_work: set[tuple[str, int]] = set()
        self._deaths: Counter[tuple[str, int]] = Counter()
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

    def stop(self) -> None:
        """From now on nothing new is begun."""
        self._stopping = True

    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping


def start_journal() -> Any:
    """The journal as an actor that takes no CPU, on the node of the driver; it ends with the run."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Journal).remote()


@contextlib.contextmanager
def passing_on(stop: Event | None, journal: Any) -> Iterator[None]:
    """Tell the journal once the run is to stop, from a thread of its own, for rows may be minutes apart."""
    ended = Event()

    def watch(stop: Event) -> None:
        while not ended.is_set():
            if stop.wait(_POLL_S):
                journal.stop.remote()
                return

    if stop is None:
        yield
        return
    thread = Thread(target=watch, args=(stop,), name="occpipe-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def asking(journal: Any) -> Ask:
    """How to ask a journal that is an actor: two calls a batch, about a millisecond each."""
    import ray

    return lambda method, *arguments: ray.get(getattr(journal, method).remote(*arguments))


class Guard:
    """A stage that notes in the journal what it works on. `skips` a batch that it has not begun when the run stops."""

    def __init__(self, name: str, stage: Callable[[pa.Table], pa.Table], ask: Ask, *, skips: bool = False) -> None:
        self._name, self._stage, self._ask, self._skips = name, stage, ask, skips

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._skips and self._ask("is_stopping"):
            return self._stage(batch.slice(0, 0))
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
class StoppableFetch(Fetch):
    """Reads nothing more once the run is to stop."""

    journal: Any

    def __call__(self, batch: pa.Table) -> pa.Table:
        return super().__call__(batch.slice(0, 0) if asking(self.journal)("is_stopping") else batch)


class GuardedSegment(Guard):
    """Pool A."""

    def __init__(self, config: Config, journal: Any) -> None:
        super().__init__("segment", SegmentStage(config), asking(journal), skips=True)


class GuardedInpaint(Guard):
    """Pool B."""

    def __init__(self, config: Config, journal: Any) -> None:
        super().__init__("inpaint", InpaintStage(config), asking(journal))


def _open_ids(batch: pa.Table) -> list[int]:
    ids: list[int] = batch.column("image_id").to_pylist()
    return [ids[row] for row in Rows(batch, "").open()]
