"""The stages of a run as a data set of Ray Data: two pools of actors, and tasks between them; see `occpipe.pipeline`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from threading import Event
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy
from ray.exceptions import RayError

from occpipe.cluster import check_capacity, configure_data, ray_session
from occpipe.config import Config, PoolPlacement, TaskPlacement
from occpipe.errors import RunError
from occpipe.journal import Guard, GuardedInpaint, GuardedSegment, StoppableFetch, passing_on, start_journal
from occpipe.stages.discover import Discovery
from occpipe.stages.fetch import Fetch
from occpipe.stages.relate import Relate
from occpipe.stages.sink import Sink
from occpipe.stages.source import ManifestSource

_RAISED = re.compile(r"(?!ray\.)[\w.]*(Error|Exception): ")  # how a traceback ends, but for Ray's around it


@contextlib.contextmanager
def on_ray(config: Config, found: Discovery, sink: Sink, stop: Event | None) -> Iterator[Iterator[pa.Table]]:
    """The thin rows of a run on Ray, as they are written. Raises CapacityError; RunError where a worker fails for good."""
    with ray_session(config.ray), _one_line():
        check_capacity(config.placement, config.ray.capacity_timeout_s)
        journal = start_journal()
        rows = build(config, found, sink, journal)
        with passing_on(stop, journal):
            yield rows.iter_batches(batch_format="pyarrow", batch_size=None)


def build(config: Config, found: Discovery, sink: Sink, journal: Any) -> Dataset:
    """The data set of thin rows; nothing runs before it is read."""
    configure_data(config.ray)
    at = config.placement
    rows = ray.data.read_datasource(ManifestSource(sink.output, found))
    rows = _tasks(rows, StoppableFetch(found.root, config.corpus, at.fetch.threads, journal), at.fetch)  # 2
    rows = _pool(rows, GuardedSegment, config, journal, at.segment, at.segment.ahead)  # 3
    rows = _tasks(rows, Relate(config), at.relate)  # 4
    rows = _pool(rows, GuardedInpaint, config, journal, at.inpaint)  # 5
    return _tasks(rows, sink, at.sink)  # 6


def _tasks(rows: Dataset, stage: Fetch | Relate | Sink, at: TaskPlacement) -> Dataset:
    return rows.map_batches(
        stage.__call__,  # a bound method: Ray takes an instance for the constructor of an actor
        batch_size=at.batch_size,
        batch_format="pyarrow",
        num_cpus=at.num_cpus,
        compute=TaskPoolStrategy(at.max_tasks),
    )


def _pool(
    rows: Dataset, stage: type[Guard], config: Config, journal: Any, at: PoolPlacement, ahead: int = 1
) -> Dataset:
    return rows.map_batches(
        stage,
        fn_constructor_args=(config, journal),
        batch_size=at.batch_size * ahead,
        batch_format="pyarrow",
        num_cpus=at.num_cpus,
        num_gpus=at.num_gpus,
        compute=ActorPoolStrategy(min_size=at.min_size, max_size=at.max_size, initial_size=at.initial_size),
        max_task_retries=-1,  # a task holds many batches, and the journal ends what would repeat for ever
    )


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """A worker's failure as one line: Ray's own message is the traceback of three processes, and advice."""
    try:
        yield
    except RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raised = [line for line in lines if _RAISED.match(line)] or lines
        raise RunError(f"a worker failed: {raised[-1]}") from error
