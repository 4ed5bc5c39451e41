"""The steps of a job as a data set of Ray Data: a read by units, two pools of actors, and tasks between them.

Each step takes whole blocks, and a block holds rows of one shard only. Pixels travel at the model's size, 32 MB a block or
as `ray.block_mb` has it; after `segment` a row has a few kB. The driver gets one row a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset, Datasource, ReadTask, TaskPoolStrategy
from ray.data.block import BlockMetadata

from occpipe.core.config_placement import PoolPlacement, TaskPlacement
from occpipe.core.schemas import PUBLISHED
from occpipe.dataset.layout import Layout
from occpipe.dataset.shards import write_part
from occpipe.io.storage import store_of
from occpipe.pipeline.job import Job
from occpipe.pipeline.monitoring.run_result import BLOCK, block_summary
from occpipe.pipeline.ray.crash_guard import Guard, PoolWorker, Timed, Work
from occpipe.pipeline.ray.journal import JournalHandle
from occpipe.pipeline.ray.private import map_whole_blocks
from occpipe.pipeline.units import SLICE_ROWS, Reader, Unit

P = ParamSpec("P")
T = TypeVar("T")

CALLS_ON_GPU = 2
"""Blocks that an actor with a GPU has in work: while one computes, the other is unpacked, padded, encoded and sent on."""


class RayExecutor(Executor):
    """Functions as Ray tasks that take no CPU of their own: they wait for storage."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a task; its future is done when its result is here."""
        task = ray.remote(num_cpus=0, max_retries=3)(fn)
        future: Future[T] = task.remote(*args, **kwargs).future()
        return future


@dataclass(frozen=True)
class ReadUnit:
    """A read task: the rows of a unit through `load`, a slice at a time; a stop ends it before the next slice."""

    output: str
    read: Reader
    unit: Unit
    load: Work
    journal: JournalHandle

    def __call__(self) -> Iterator[pa.Table]:
        rows = self.read(store_of(self.output), self.unit)
        load = Guard("load", self.load, self.journal, skippable=True)
        for start in range(0, len(rows), SLICE_ROWS):
            yield load(rows.slice(start, SLICE_ROWS))


class UnitSource(Datasource):  # type: ignore[misc]  # Ray ships no types
    """Units as a Ray data source, with a read task for each."""

    def __init__(self, reads: Sequence[ReadUnit]) -> None:
        self._reads = reads

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known: it depends on the photos."""
        return None

    def get_read_tasks(self, parallelism: int, **_: object) -> list[ReadTask]:  # noqa: ARG002 - one for each unit
        """One task for each unit."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(read, unknown) for read in self._reads]


@dataclass(frozen=True)
class WriteBlock:
    """The last stage: images, then a part with the rows of the block, then one row for the driver."""

    write: Work
    output: str
    layout: Layout
    run: int

    def __call__(self, batch: pa.Table) -> pa.Table:
        if not len(batch):
            return BLOCK.empty_table()
        shard, first = batch.column("shard")[0].as_py(), batch.column("row")[0].as_py()
        rows = self.write(batch)
        published = rows.select(PUBLISHED.names).cast(PUBLISHED)
        write_part(store_of(self.output), self.layout, self.run, shard, first, published)
        return block_summary(shard, rows)


def build_dataset(job: Job, layout: Layout, run: int, units: Sequence[Unit], journal: JournalHandle) -> Dataset:
    """The data set of block summaries of a job over some units; nothing runs before it is read."""
    setup, (first, *others) = job.setup_for(layout), job.steps
    load = first.build(setup)
    reads = [ReadUnit(setup.output, job.source.read, unit, load, journal) for unit in units]
    rows = in_read_tasks(reads, job.config.placement.load)
    for step in others:
        at = getattr(job.config.placement, step.name)
        if step.is_pool:
            worker = type(f"{step.name.capitalize()}Worker", (PoolWorker,), {})  # the title of its processes
            rows = in_pool(rows, worker, (step, setup, journal), at)
            continue
        stage: Work = step.build(setup)
        if step is job.steps[-1]:
            stage = WriteBlock(stage, setup.output, layout, run)
        rows = in_tasks(rows, Timed(step.name, stage, journal), at)
    return rows


def in_read_tasks(reads: Sequence[ReadUnit], at: TaskPlacement) -> Dataset:
    """The rows of units after the first step, a read task for each unit."""
    options = at.ray_options()
    return ray.data.read_datasource(
        UnitSource(reads),
        override_num_blocks=len(reads),
        num_cpus=options.pop("num_cpus"),
        compute=TaskPoolStrategy(at.max_tasks),
        # the journal ends what would repeat for ever
        ray_remote_args={"max_retries": -1, **{name: value for name, value in options.items() if value}},
    )


def in_tasks(rows: Dataset, stage: Timed, at: TaskPlacement) -> Dataset:
    """The rows after a stage that runs as tasks, a block each."""
    return rows.map_batches(
        stage.__call__,  # a bound method: Ray takes an instance for the constructor of an actor
        batch_size=None,
        batch_format="pyarrow",
        **at.ray_options(),
        compute=TaskPoolStrategy(at.max_tasks),
    )


def in_pool(rows: Dataset, worker: type[Guard], arguments: tuple[object, ...], at: PoolPlacement) -> Dataset:
    """The rows after a stage that runs in a pool of actors, a block at a time in each."""
    pool = ActorPoolStrategy(
        min_size=at.min_size,
        max_size=at.max_size,
        initial_size=at.initial_size,
        max_concurrent_calls_per_actor=CALLS_ON_GPU if at.num_gpus else None,
        enable_true_multi_threading=at.num_gpus > 0,
    )
    # the journal ends what would repeat for ever
    options = {"fn_constructor_args": arguments, "compute": pool, "max_task_retries": -1, **at.ray_options()}
    return map_whole_blocks(rows, worker, **options)
