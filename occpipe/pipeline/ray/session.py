"""Ray for the time of a run: started or reached, checked, watched, and given back on every way out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Sequence
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from occpipe.core.config import Config
from occpipe.dataset.layout import Layout
from occpipe.pipeline.job import Job, Unit
from occpipe.pipeline.monitoring.monitor import Watch, watching
from occpipe.pipeline.monitoring.run_result import Made, Tick
from occpipe.pipeline.ray.capacity import check_capacity
from occpipe.pipeline.ray.connection import configure_data, one_line_failures, ray_session
from occpipe.pipeline.ray.journal import JournalHandle
from occpipe.pipeline.steps import STEPS, Kind


class Session:
    """A connection to Ray, inside a `with`. Raises CapacityError where the cluster cannot hold the stages of a command."""

    def __init__(self, config: Config, kind: Kind) -> None:
        self._config, self._kind = config, kind
        self._stack = contextlib.ExitStack()
        self._watch: Watch | None = None

    def __enter__(self) -> Self:
        loading = Thread(target=_import_ray_data, daemon=True)  # Ray's own processes start meanwhile
        loading.start()
        with contextlib.ExitStack() as stack:
            stack.enter_context(ray_session(self._config.ray))
            stack.enter_context(one_line_failures())
            check_capacity(self._config.placement, self._config.ray.capacity_timeout_s, STEPS[self._kind])
            loading.join()
            configure_data(self._config.ray)
            from occpipe.pipeline.ray.executor import RayExecutor

            self.executor, self.journal = RayExecutor(), JournalHandle()
            stack.callback(self.journal.end)  # Ray Data keeps what it was given, and with it the actor
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    def watch(
        self,
        made: Made,
        started: float,
        output: str,
        stop: Event,
        on_progress: Callable[[Tick], None],
        total: int,
    ) -> None:
        """Tell of the progress of a run from now on; `total` images are known to be done by it so far."""
        if self._watch is None:
            self._watch = Watch(made, started, self._config.placement, STEPS[self._kind])
            self._watch.total = total
            self._stack.enter_context(watching(self._watch, self.journal, output, stop, on_progress))
        self._watch.total = total

    def stop(self) -> None:
        """Let the stages finish what they have begun."""
        self.journal.tell("stop")

    def blocks(
        self, job: Job, output: str, layout: Layout, run: int, units: Sequence[Unit]
    ) -> Generator[tuple[int, int, dict[str, Any]], None, None]:
        """Shard, rows and summary of each block, as its part is written."""
        from occpipe.pipeline.ray.executor import ReadUnit, chain, stages_of

        reads = [ReadUnit(output, job.read, unit, job.load, self.journal) for unit in units]
        rows = chain(reads, stages_of(job, self._config, output, layout, run, self.journal), self._config, self.journal)
        for batch in rows.iter_batches(batch_format="pyarrow", batch_size=None):
            for block in batch.to_pylist():
                yield block["shard"], block["rows"], json.loads(block["summary"])


def _import_ray_data() -> None:
    import occpipe.pipeline.ray.executor  # noqa: F401 - it takes seconds
