"""The journal of a run, an actor beside the workers: what is in work in each stage, what they did, the wish to stop.

Its process is one of those that a run waits for at its start, so this module imports next to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from occpipe.pipeline.monitoring.stage_statistics import BatchDone, StageFigures, Tally

MAX_RETURNS = 2
"""How often a block is given back by models that fail, before its rows end as errors."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """For each image how many processes it has seen die, and whether the run is to stop."""

    deaths: list[int]
    stopping: bool


class Journal:
    """What is in work, per stage; no method may be called while another one runs."""

    def __init__(self) -> None:
        self._in_work: set[tuple[str, int]] = set()
        self._deaths: Counter[tuple[str, int]] = Counter()
        self._returns: Counter[tuple[str, int]] = Counter()
        self._tally = Tally()
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
        """Note that work on images has ended, well or not."""
        self._in_work.difference_update((stage, image) for image in images)

    def give_back(self, stage: str, images: Sequence[int]) -> bool:
        """Whether a block may be tried by another model; where it may, its images are not in work any more."""
        key = stage, images[0]
        self._returns[key] += 1
        if self._returns[key] > MAX_RETURNS:
            return False
        self.finish(stage, images)
        return True

    def report(self, done: BatchDone) -> None:
        """Add what a block took to the sums of its stage."""
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


class JournalHandle:
    """The journal as an actor that takes no CPU, on the node of the driver; it ends with the run. May be pickled."""

    def __init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.actor: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(Journal).remote()

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """The answer to a call, about a millisecond."""
        import ray

        return ray.get(getattr(self.actor, method).remote(*arguments, **options))

    def end(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self.actor)

    def tell(self, method: str, *arguments: Any) -> None:
        """Make a call without waiting for it; calls of one process arrive in their order."""
        getattr(self.actor, method).remote(*arguments)
