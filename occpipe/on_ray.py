"""The stages of a run as a data set of Ray Data: two pools of actors, and tasks between them; see `occpipe.pipeline`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from occpipe.capacity import check_capacity
from occpipe.cluster import configure_data, one_line_failures, ray_session
from occpipe.config import Config, PoolPlacement, TaskPlacement
from occpipe.journal import Guard, GuardedInpaint, GuardedSegment, Stoppable, Timed, start_journal
from occpipe.recipe import Work
from occpipe.stages.discover import Discovery
from occpipe.stages.fetch import Fetch
from occpipe.stages.relate import Relate
from occpipe.stages.sink import Sink
from occpipe.stages.source import ManifestSource
from occpipe.watch import watching


class Stage(Protocol):
    """A stage that runs as tasks."""

    def __call__(self, batch: pa.Table, /) -> pa.Table: ...


@contextlib.contextmanager
def on_ray(work: Work) -> Iterator[Iterator[pa.Table]]:
    """The thin rows of a run on Ray, as they are written. Raises CapacityError; RunError where a worker fails for good."""
    config, make = work.config, work.recipe.build or build
    with ray_session(config.ray), one_line_failures():
        check_capacity(config.placement, config.ray.capacity_timeout_s, work.recipe.stages)
        journal = start_journal()
        rows = make(config, work.found, work.sink, journal)
        with watching(work.watch, journal, work.sink.output, work.stop, work.on_progress):
            yield rows.iter_batches(batch_format="pyarrow", batch_size=None)


def build(config: Config, found: Discovery, sink: Sink, journal: Any) -> Dataset:
    """The data set of thin rows of a clean or a scan; nothing runs before it is read."""
    configure_data(config.ray)
    at = config.placement
    rows = ray.data.read_datasource(ManifestSource(sink.output, found))
    fetch = Stoppable(Fetch(found.root, config.corpus, at.fetch.threads), journal)
    rows = in_tasks(rows, Timed("fetch", fetch, journal), at.fetch)  # 2
    rows = in_pool(rows, GuardedSegment, config, journal, at.segment, at.segment.ahead)  # 3
    rows = in_tasks(rows, Timed("relate", Relate(config), journal), at.relate)  # 4
    if sink.images is not None:
        rows = in_pool(rows, GuardedInpaint, config, journal, at.inpaint)  # 5
    return in_tasks(rows, Timed("sink", sink, journal), at.sink)  # 6


def in_tasks(rows: Dataset, stage: Stage, at: TaskPlacement) -> Dataset:
    """The rows after a stage that runs as tasks."""
    return rows.map_batches(
        stage.__call__,  # a bound method: Ray takes an instance for the constructor of an actor
        batch_size=at.batch_size,
        batch_format="pyarrow",
        **at.ray_options(),
        compute=TaskPoolStrategy(at.max_tasks),
    )


def in_pool(
    rows: Dataset, stage: type[Guard], config: Config, journal: Any, at: PoolPlacement, ahead: int = 1
) -> Dataset:
    """The rows after a stage that runs in an actor pool, of which an actor takes `ahead` batches at once."""
    return rows.map_batches(
        stage,
        fn_constructor_args=(config, journal),
        batch_size=at.batch_size * ahead,
        batch_format="pyarrow",
        **at.ray_options(),
        compute=ActorPoolStrategy(min_size=at.min_size, max_size=at.max_size, initial_size=at.initial_size),
        max_task_retries=-1,  # a task holds many batches, and the journal ends what would repeat for ever
    )
