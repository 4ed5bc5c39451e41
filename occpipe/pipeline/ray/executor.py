"""The stages of a job as a data set of Ray Data: a read by units, two pools of actors, and tasks between them.

Each stage takes whole blocks, and a block holds rows of one shard only. What travels are pixels at the model's size (32 MB
a block, or what `ray.block_mb` says) and after `segment` a few kB a row. The driver gets one row a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset, Datasource, ReadTask, TaskPoolStrategy
from ray.data.block import BlockMetadata

from occpipe.core.config import Config
from occpipe.core.config_placement import PoolPlacement, TaskPlacement
from occpipe.core.schemas import PUBLISHED
from occpipe.dataset.layout import Layout
from occpipe.dataset.shards import write_part
from occpipe.io.storage import store_of
from occpipe.pipeline.job import Job, Reader, Stage, Unit
from occpipe.pipeline.monitoring.run_result import BLOCK, block_summary
from occpipe.pipeline.ray.crash_guard import Guard, GuardedInpaint, GuardedSegment, Timed
from occpipe.pipeline.ray.journal import JournalHandle
from occpipe.pipeline.steps import SLICE_ROWS, STEPS
from occpipe.stages.write import Write

T = TypeVar("T")

CALLS_ON_GPU = 2
"""Blocks that an actor with a GPU has in work: while one computes, the other is unpacked, padded, encoded and sent on."""


class RayExecutor(Executor):
    """Functions as Ray tasks that take no CPU of their own: they wait for storage."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Start a task; its future is done when its result is here."""
        task = ray.remote(num_cpus=0, max_retries=3)(fn)
        future: Future[T] = task.remote(*args, **kwargs).future()
        return future


@dataclass(frozen=True)
class ReadUnit:
    """A read task: the rows of a unit through `load`, a slice at a time. Before each it asks whether the run is to stop."""

    output: str
    read: Reader
    unit: Unit
    load: Stage
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

    write: Stage
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


def chain(
    reads: Sequence[ReadUnit], stages: Sequence[tuple[str, Any]], config: Config, journal: JournalHandle
) -> Dataset:
    """The data set of block summaries: units through the stages after `load`; nothing runs before it is read.

    A stage is a callable over tables for tasks, or a class of actors with its constructor's arguments for a pool.
    """
    at = config.placement
    options = at.load.ray_options()
    rows = ray.data.read_datasource(
        UnitSource(reads),
        override_num_blocks=len(reads),
        num_cpus=options.pop("num_cpus"),
        compute=TaskPoolStrategy(at.load.max_tasks),
        # the journal ends what would repeat for ever
        ray_remote_args={"max_retries": -1, **{name: value for name, value in options.items() if value}},
    )
    for name, stage in stages:
        placed = getattr(at, name)
        if isinstance(stage, tuple):
            rows = in_pool(rows, stage[0], stage[1:], placed)
        else:
            rows = in_tasks(rows, Timed(name, stage, journal), placed)
    return rows


def stages_of(
    job: Job, config: Config, output: str, layout: Layout, run: int, journal: JournalHandle
) -> list[tuple[str, Any]]:
    """The stages of a job after `load`, as `chain` takes them."""
    root, unchanged = job.root, config.output.unchanged
    images = None if job.kind == "scan" else layout.images
    write = Write(root, output, images, unchanged, config.placement.write.threads)
    stages: dict[str, Any] = {
        "segment": (GuardedSegment, config, journal),
        "relate": job.relate,
        "inpaint": (GuardedInpaint, config, root, journal),
        "write": WriteBlock(write, output, layout, run),
    }
    return [(name, stages[name]) for name in STEPS[job.kind] if name != "load"]


def in_tasks(rows: Dataset, stage: Stage, at: TaskPlacement) -> Dataset:
    """The rows after a stage that runs as tasks, a block each."""
    return rows.map_batches(
        stage.__call__,  # a bound method: Ray takes an instance for the constructor of an actor
        batch_size=None,
        batch_format="pyarrow",
        **at.ray_options(),
        compute=TaskPoolStrategy(at.max_tasks),
    )


def in_pool(rows: Dataset, stage: type[Guard], arguments: tuple[Any, ...], at: PoolPlacement) -> Dataset:
    """The rows after a stage that runs in a pool of actors, a block at a time in each.

    `map_batches` itself takes no whole blocks where GPUs are asked for: with a batch size it would mix shards.
    """
    return rows.map_batches_internal(
        stage,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        **at.ray_options(),
        compute=ActorPoolStrategy(
            min_size=at.min_size,
            max_size=at.max_size,
            initial_size=at.initial_size,
            max_concurrent_calls_per_actor=CALLS_ON_GPU if at.num_gpus else None,
            enable_true_multi_threading=at.num_gpus > 0,
        ),
        max_task_retries=-1,  # the journal ends what would repeat for ever
    )
