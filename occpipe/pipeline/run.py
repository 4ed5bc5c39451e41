"""One run: list, then work in executions of Ray Data, commit each shard that is complete, and write the sums.

    listing thread   corpus -> manifest shards, as they become full
    take             shards that are known and not done -> units for the load tasks
    execution        load -> segment -> relate -> inpaint -> write, over these units; Ray Data
    commit           a task for each shard whose last rows are written
    sums             once, at the end

An execution works on what is known when it begins, up to 4,096 units; the next one on what was listed meanwhile. So work
begins with the first shard, and Ray Data's driver holds no more than one execution's blocks. Where nothing is to do, Ray is
not started, and not imported.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Event
from typing import TYPE_CHECKING, ParamSpec, TypeVar, Unpack

from occpipe.core.config import Config
from occpipe.core.errors import RunError
from occpipe.dataset.layout import SUMS, Layout
from occpipe.dataset.lock import OutputLock, Share
from occpipe.dataset.manifest import load_index
from occpipe.dataset.shards import Commit
from occpipe.dataset.sums import OutputSums, write_sums
from occpipe.dataset.versions import open_version
from occpipe.io.storage import Store, open_store
from occpipe.models.loading import load_relations
from occpipe.pipeline.backlog import Backlog, commit_task
from occpipe.pipeline.job import Job, RunOptions, corpus_job
from occpipe.pipeline.lister import Lister, list_nothing
from occpipe.pipeline.monitoring.monitor import Monitor, monitored
from occpipe.pipeline.monitoring.run_result import ProgressSnapshot, RunCounts, RunResult
from occpipe.pipeline.units import Unit

if TYPE_CHECKING:
    from occpipe.pipeline.ray.session import Session  # whose import of Ray takes seconds

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger(__name__)


def clean_corpus(config: Config, input_uri: str, output_uri: str, **options: Unpack[RunOptions]) -> RunResult:
    """Clean all images below `input_uri` into `output_uri`; the options and errors are those of `run`."""
    return run(corpus_job(config, input_uri, output_uri), **options)


def scan_corpus(config: Config, input_uri: str, output_uri: str, **options: Unpack[RunOptions]) -> RunResult:
    """Decide for all images what `clean_corpus` would remove, and write rows only."""
    return run(corpus_job(config, input_uri, output_uri, scan=True), **options)


def run(
    job: Job,
    *,
    limit: int | None = None,
    new_version: bool = False,
    share: tuple[int, int] = (0, 1),
    listing: bool = True,
    on_progress: Callable[[ProgressSnapshot], None] = lambda _: None,
    stop: Event | None = None,
) -> RunResult:
    """Write and publish the rows of a job; rows that its output has already are not done again.

    Args:
        job: The command with its steps, config, source and output.
        limit: Only the first images of the corpus.
        new_version: Where the output was made in another way, make a new version beside what is published.
        share: `(I, N)`: work on every N-th shard only, from the I-th on, while other drivers work on the others.
        listing: Whether the corpus is listed; without, the run goes on with the images that are known.
        on_progress: Called about once a second.
        stop: Once it is set no image is begun any more; what was begun is finished and published.

    Returns:
        What the run did.

    Raises:
        ConfigError, StorageError, WeightsError, CapacityError, OutputBusyError: Before the first image.
        RunError: A worker failed for good, too many rows failed, or a row is missing.
        OutputBusyError: Another run took the output over meanwhile.
        Exception: An error of `on_progress`, once the rows are published.
    """
    started = time.monotonic()
    config = job.config
    store = open_store(job.output)
    load_relations(config.relations)  # fails here, and not in each worker
    with OutputLock(store, Share(*share)) as lock:
        layout = open_version(store, config, job.models, job.source.root, job.origin, new=new_version)
        backlog = Backlog(store, layout, Share(*share), config.output.retry, limit, job.source.max_unit_rows)
        backlog.add(load_index(store))
        source = job.source if listing else replace(job.source, list=list_nothing)
        lister = Lister(
            source.list, store, layout, config.shard.images, limit, lock.check, follow=listing and share[1] > 1
        )
        with contextlib.ExitStack() as stack:
            work = _Run(job, store, layout, backlog, lock, lister, stop or Event(), on_progress, started, stack)
            work.execute_all()
        lock.confirm()
        sums = work.write_sums(whole=limit is None and share[1] == 1)
    return work.result(sums)


class InlineExecutor(Executor):
    """Runs each function at once in the caller's thread, as long as Ray is not started."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """A future with the result of the function."""
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@dataclass
class _Run:
    """The state of a run between its executions."""

    job: Job
    store: Store
    layout: Layout
    backlog: Backlog
    lock: OutputLock
    lister: Lister
    stop: Event
    on_progress: Callable[[ProgressSnapshot], None]
    started: float
    stack: contextlib.ExitStack
    counts: RunCounts = field(default_factory=RunCounts)
    executor: Executor = field(default_factory=InlineExecutor)
    commits: list[Future[Commit]] = field(default_factory=list)
    failure: str = ""
    is_left: bool = False
    """Whether something is left to do."""

    @cached_property
    def session(self) -> Session:
        """Ray, which starts where it is first needed."""
        from occpipe.pipeline.ray.session import ray_for

        session = self.stack.enter_context(ray_for(self.job))
        self.executor = session.executor
        self.lister.give(session.executor)
        return session

    @cached_property
    def monitor(self) -> Monitor:
        """The monitor, from the first execution on."""
        monitor = Monitor(self.counts, self.started, self.job.config.placement, [step.name for step in self.job.steps])
        monitor.total = self.backlog.pending
        journal = self.session.journal
        self.stack.enter_context(monitored(monitor, journal, self.store.uri, self.stop, self.on_progress))
        return monitor

    def execute_all(self) -> None:
        """List, execute and commit until nothing is left to do or the run is to stop."""
        ended = False
        with self.lister:
            while not self.stop.is_set() and not self.failure:
                ended = self._take_listed(wait=not self.backlog.has_work)
                if self.backlog.has_fresh:
                    _ = self.session  # it takes seconds, in which the listing goes on
                    ended = self._take_listed(wait=False)
                if self.backlog.has_work:
                    units = self.backlog.take(lambda: self.session.executor, self._commit)
                    if units:
                        self._execute(units)
                    self._finish_commits()
                elif ended:
                    break
        for shard in self.backlog.unfinished():
            self._commit(shard)
        self._finish_commits()
        self.is_left = self.backlog.has_work or not ended

    def write_sums(self, *, whole: bool) -> OutputSums:
        """Write the sums of what is published; a new version that is `whole` takes the place of the old one."""
        job = self.job
        about = (self.store, job.config, job.models, job.source.root, self.layout, job.origin)
        return write_sums(*about, listed=self.backlog.images, whole=whole)

    def result(self, sums: OutputSums) -> RunResult:
        """What the run did. Raises RunError where too many rows failed or one is missing, and an error of `on_progress`."""
        if self.failure:
            raise RunError(self.failure)
        rows, pending = self.counts.statuses.total(), self.backlog.pending
        stopped = self.stop.is_set() and (rows < pending or self.is_left)
        if not stopped and (rows < pending or self.backlog.lost):
            raise RunError(
                f"{rows} of {pending} rows are written, {self.backlog.lost} are missing in committed shards;"
                f" do all nodes write to the same {self.store.uri}?"
            )
        if self.counts.progress_error:
            raise self.counts.progress_error
        done_before = max(0, self.backlog.own_images - pending)
        return RunResult(self.counts, done_before, time.monotonic() - self.started, sums, stopped=stopped)

    def _take_listed(self, *, wait: bool) -> bool:
        return self.lister.take(self.backlog, lambda: self.session, self.stop, wait=wait)

    def _execute(self, units: list[Unit]) -> None:
        """One execution of Ray Data over some units."""
        if self.store.find(SUMS) is None:  # so that readers find the first shards
            self.write_sums(whole=False)
        self.monitor.total = self.backlog.pending
        logger.info("an execution over %d units of %s", len(units), self.store.uri)
        with contextlib.closing(self.session.blocks(self.layout, self.backlog.run, units)) as blocks:
            for shard, rows, summary in blocks:
                self.lock.check()
                self.counts.add(summary)
                if self.backlog.done(shard, rows):
                    self._commit(shard)
                self._check_failures()

    def _commit(self, shard: int) -> None:
        """Publish a shard."""
        containers = self.job.setup.containers
        self.commits.append(self.executor.submit(commit_task, self.store.uri, self.layout, shard, containers))

    def _finish_commits(self) -> None:
        commits, self.commits = self.commits, []
        for commit in commits:
            self.backlog.committed(commit.result(), stopped=self.stop.is_set() or bool(self.failure))

    def _check_failures(self) -> None:
        """End the run where more rows fail than it accepts, for a reason that may pass."""
        errors, rows, failed = self.job.config.errors, self.counts.statuses.total(), self.counts.failed
        if not self.failure and rows >= errors.min_rows and failed > errors.max_failed_share * rows:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.counts.reasons.most_common())
            example = next(iter(self.counts.examples.values()), "")
            self.failure = (
                f"{failed} of {rows} rows failed, more than errors.max_failed_share {errors.max_failed_share:g}"
                f" ({reasons}), such as {example}; what is done is published, and the next run does them again"
            )
            logger.error(self.failure)
            self.session.stop()
