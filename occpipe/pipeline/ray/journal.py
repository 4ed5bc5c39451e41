"""The journal of a run, an actor beside the workers: images in work, stage statistics, log records, a request to stop.

A run waits for its process at the start, so this module imports next to nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import LogRecord
from typing import Concatenate, ParamSpec, TypeVar

from occpipe.pipeline.monitoring.stage_statistics import BatchStatistics, StageStatistics, Tally

P = ParamSpec("P")
T = TypeVar("T")

MAX_RETURNS = 2
"""How often models that fail may give a block back, before its rows end as errors."""
MAX_RECORDS = 1_000
"""Log records that wait for the driver; older ones are dropped."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """For each image the number of its processes that died while it was in work, and whether the run is to stop."""

    deaths: list[int]
    stopping: bool


class Journal:
    """What is in work, by stage; no method may be called while another one runs."""

    def __init__(self) -> None:
        self._in_work: set[tuple[str, int]] = set()
        self._deaths: Counter[tuple[str, int]] = Counter()
        self._returns: Counter[tuple[str, int]] = Counter()
        self._tally = Tally()
        self._records: deque[LogRecord] = deque(maxlen=MAX_RECORDS)
        self._stopping = False

    def begin(self, stage: str, images: Sequence[int], *, skippable: bool = False) -> Beginning:
        """Note that work on images begins, unless the run is to stop and they are `skippable`.

        An image that is begun again without having been finished was in work when its process died.
        """
        if skippable and self._stopping:
            return Beginning([], stopping=True)
        keys = [(stage, image) for image in images]
        self._deaths.update(key for key in keys if key in self._in_work)
        self._in_work.update(keys)
        return Beginning([self._deaths[key] for key in keys], stopping=False)

    def finish(self, stage: str, images: Sequence[int]) -> None:
        """Note that work on images has ended, with or without an error."""
        self._in_work.difference_update((stage, image) for image in images)

    def give_back(self, stage: str, images: Sequence[int]) -> bool:
        """Whether a block may be tried by another model; where it may, its images are not in work any more."""
        key = stage, images[0]
        self._returns[key] += 1
        if self._returns[key] > MAX_RETURNS:
            return False
        self.finish(stage, images)
        return True

    def report(self, batch: BatchStatistics) -> None:
        """Add a block to the sums of its stage."""
        self._tally.add(batch)

    def statistics(self) -> dict[str, StageStatistics]:
        """The sums of the stages so far."""
        return self._tally.sums()

    def log(self, record: LogRecord) -> None:
        """Keep a log record of a worker for the driver."""
        self._records.append(record)

    def take_records(self) -> list[LogRecord]:
        """The log records since the last call."""
        records = list(self._records)
        self._records.clear()
        return records

    def stop(self) -> None:
        """From now on nothing new is begun."""
        self._stopping = True

    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping


class JournalHandle:
    """The journal as an actor that takes no CPU, on the node of the driver; it ends with the run. May be pickled."""

    def __init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor = ray.remote(num_cpus=0, scheduling_strategy=here)(Journal).remote()

    def call(self, method: Callable[Concatenate[Journal, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a method of the journal, after about a millisecond."""
        return self.call_within(None, method, *args, **kwargs)

    def call_within(
        self, seconds: float | None, method: Callable[Concatenate[Journal, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same; GetTimeoutError where it takes longer than so many seconds."""
        import ray

        result: T = ray.get(getattr(self._actor, method.__name__).remote(*args, **kwargs), timeout=seconds)
        return result

    def send(self, method: Callable[Concatenate[Journal, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a method without waiting for it; the calls of one process keep their order."""
        getattr(self._actor, method.__name__).remote(*args, **kwargs)

    def end(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self._actor)
