"""Ray for the time of a run: started or reached, checked, and given back on every way out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator, Sequence
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from occpipe.dataset.layout import Layout
from occpipe.pipeline.job import Job
from occpipe.pipeline.monitoring.run_result import BlockSummary
from occpipe.pipeline.ray.capacity import check_capacity
from occpipe.pipeline.ray.connection import configure_data, one_line_failures, ray_session
from occpipe.pipeline.ray.journal import Journal, JournalHandle
from occpipe.pipeline.units import Unit

if TYPE_CHECKING:
    from occpipe.pipeline.ray.executor import RayExecutor


class Session(NamedTuple):
    """A job on Ray: an executor for functions, and the journal of the stages."""

    job: Job
    executor: RayExecutor
    journal: JournalHandle

    def blocks(
        self, layout: Layout, run: int, units: Sequence[Unit]
    ) -> Generator[tuple[int, int, BlockSummary], None, None]:
        """Shard, rows and summary of each block, as its part is written."""
        from occpipe.pipeline.ray.executor import build_dataset

        rows = build_dataset(self.job, layout, run, units, self.journal)
        for batch in rows.iter_batches(batch_format="pyarrow", batch_size=None):
            for block in batch.to_pylist():
                yield block["shard"], block["rows"], json.loads(block["summary"])

    def stop(self) -> None:
        """Let the stages finish what they have begun."""
        self.journal.send(Journal.stop)


@contextlib.contextmanager
def ray_for(job: Job) -> Iterator[Session]:
    """Ray for a job. Raises CapacityError where the cluster cannot hold its steps."""
    settings = job.config.ray
    loading = Thread(target=_import_ray_data, daemon=True)  # Ray's own processes start meanwhile
    loading.start()
    with ray_session(settings), one_line_failures():
        check_capacity(job.config.placement, settings.capacity_timeout_s, job.steps)
        loading.join()
        configure_data(settings)
        from occpipe.pipeline.ray.executor import RayExecutor

        journal = JournalHandle()
        try:
            yield Session(job, RayExecutor(), journal)
        finally:
            journal.end()  # Ray Data keeps a reference, and would keep the actor


def _import_ray_data() -> None:
    import occpipe.pipeline.ray.executor  # noqa: F401 - it takes seconds
