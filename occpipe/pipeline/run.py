"""One run: list, then work in executions of Ray Data, commit each shard that is complete, and write the sums.

    listing thread   corpus -> manifest shards, as they become full
    take             shards that are known and not done -> units for the load tasks
    execution        load -> segment -> relate -> inpaint -> write, over these units; Ray Data
    commit           a Ray task for each shard whose last rows are written
    sums             once, at the end

An execution works on what is known when it begins, up to 4,096 units; the next one on what was listed meanwhile. So work
begins with the first shard, and Ray Data's driver holds no more than one execution's blocks. Where nothing is to do, Ray is
not started, and not imported.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from threading import Event
from typing import TYPE_CHECKING, Any, Unpack

from occpipe.core.config import Config
from occpipe.core.errors import RunError
from occpipe.dataset.layout import SUMS, Layout
from occpipe.dataset.lock import OutputLock, Share
from occpipe.dataset.manifest import load_index
from occpipe.dataset.shards import Commit
from occpipe.dataset.sums import write_sums
from occpipe.dataset.versions import open_version
from occpipe.io.storage import Store, locate, open_store
from occpipe.models.loading import load_relations
from occpipe.pipeline.backlog import Backlog, commit_task
from occpipe.pipeline.job import Job, Options, Unit, corpus_job
from occpipe.pipeline.lister import Lister
from occpipe.pipeline.monitoring.run_result import Made, Summary, Tick

if TYPE_CHECKING:
    from occpipe.pipeline.ray.session import Session  # whose import of Ray takes seconds


def clean_corpus(config: Config, input_uri: str, output_uri: str, **options: Unpack[Options]) -> Summary:
    """Clean all images below `input_uri` into `output_uri`; the options and errors are those of `run`."""
    return run(corpus_job(config, input_uri, output_uri), config, output_uri, **options)


def scan_corpus(config: Config, input_uri: str, output_uri: str, **options: Unpack[Options]) -> Summary:
    """Decide for all images what `clean_corpus` would remove, and write rows only."""
    return run(corpus_job(config, input_uri, output_uri, scan=True), config, output_uri, **options)


def run(
    job: Job,
    config: Config,
    output_uri: str,
    *,
    limit: int | None = None,
    new_version: bool = False,
    share: tuple[int, int] = (0, 1),
    listing: bool = True,
    on_progress: Callable[[Tick], None] = lambda _: None,
    stop: Event | None = None,
) -> Summary:
    """Make and publish the rows of a job; what is done in `output_uri` already is not done again.

    Args:
        job: The command, its models and the source of its images.
        config: The settings.
        output_uri: Where images, rows and the state of the work lie.
        limit: Only the first images of the corpus.
        new_version: Where the output was made in another way, make it anew beside what is published.
        share: `(I, N)`: work on every N-th shard only, from the I-th on, while other drivers work on the others.
        listing: Whether the corpus is listed; without, the run goes on with the images that are known.
        on_progress: Called about once a second.
        stop: Once it is set no image is begun any more; what was begun is finished and published.

    Returns:
        What was done.

    Raises:
        ConfigError, StorageError, WeightsError, CapacityError, OutputBusyError: Before the first image.
        RunError: A worker failed for good, too many rows failed, or a row is missing.
        OutputBusyError: Another run took the output over meanwhile.
        Exception: What `on_progress` raised, once the rows are published.
    """
    started = time.monotonic()
    store = open_store(locate(output_uri, "OUTPUT"), config.storage.output.access)
    load_relations(config.relations)
    with OutputLock(store, Share(*share)) as lock:
        layout = open_version(store, config, job.models, job.root, job.origin, new=new_version)
        backlog = Backlog(store, layout, Share(*share), config.output.retry, limit, most_rows=MOST_ROWS[job.kind])
        backlog.add(load_index(store))
        work = _Run(job, config, store, layout, backlog, lock, stop or Event(), on_progress, started)
        images = config.shard.images
        lister = Lister(job, store, layout, images, limit, lock.check, follow=share[1] > 1) if listing else None
        with contextlib.ExitStack() as stack:
            work.go(lister, stack)
        lock.confirm()
        sums = work.write_sums(whole=limit is None and share[1] == 1)
    return work.summary(sums)


MOST_ROWS = {"clean": 1_024, "scan": 1_024, "apply": 128}
"""Images of a unit: what is repeated where a node is lost. Rows of a scan are small, and travel in one block."""


class _Run:
    """The state of a run between its executions."""

    def __init__(
        self,
        job: Job,
        config: Config,
        store: Store,
        layout: Layout,
        backlog: Backlog,
        lock: OutputLock,
        stop: Event,
        on_progress: Callable[[Tick], None],
        started: float,
    ) -> None:
        self._job, self._config, self._store, self._layout = job, config, store, layout
        self._backlog, self._lock, self._stop, self._on_progress = backlog, lock, stop, on_progress
        self._started, self._made = started, Made()
        self._session: Session | None = None
        self._commits: list[Future[Commit]] = []
        self._too_many: str | None = None
        self._left = False

    def go(self, lister: Lister | None, stack: contextlib.ExitStack) -> None:
        """List, execute and commit until nothing is left to do or the run is to stop."""

        def session() -> Session:
            if self._session is None:
                from occpipe.pipeline.ray.session import Session

                self._session = stack.enter_context(Session(self._config, self._job.kind))
                if lister is not None:
                    lister.give(self._session.executor)
            return self._session

        def listed(*, wait: bool) -> bool:
            return lister is None or lister.take(self._backlog, session, self._stop, wait=wait)

        ended = False
        with lister or contextlib.nullcontext():
            while not self._stop.is_set() and not self._too_many:
                ended = listed(wait=not self._backlog.has_work)
                if self._session is None and self._backlog.has_fresh:
                    session()  # it takes seconds, in which the listing goes on
                    ended = listed(wait=False)
                if self._backlog.has_work:
                    units = self._backlog.take(lambda: session().executor, self._commit)
                    if units:
                        self._execute(session(), units)
                    self._finish_commits()
                elif ended:
                    break
        for shard in self._backlog.unfinished():
            self._commit(shard)
        self._finish_commits()
        self._left = self._backlog.has_work or not ended

    def write_sums(self, *, whole: bool) -> dict[str, Any]:
        """Write the sums of what is published; a new version that is `whole` takes the place of the old one."""
        job, images = self._job, self._backlog.images
        about = (self._store, self._config, job.models, job.root, self._layout, job.origin)
        return write_sums(*about, listed=images, whole=whole)

    def summary(self, sums: dict[str, Any]) -> Summary:
        """What the run did. Raises RunError where too many rows failed or one is missing, and what `on_progress` raised."""
        if self._too_many:
            raise RunError(self._too_many)
        rows, pending = self._made.statuses.total(), self._backlog.pending
        stopped = self._stop.is_set() and (rows < pending or self._left)
        if not stopped and (rows < pending or self._backlog.lost):
            raise RunError(
                f"{rows} of {pending} rows were made, {self._backlog.lost} are missing in committed shards;"
                f" do all nodes write to the same {self._store.uri}?"
            )
        if self._made.unwatched:
            raise self._made.unwatched
        done_before = max(0, self._backlog.own_images - pending)
        return Summary(self._made, done_before, time.monotonic() - self._started, sums, stopped=stopped)

    def _execute(self, session: Session, units: list[Unit]) -> None:
        """One execution of Ray Data over some units."""
        if self._store.find(SUMS) is None:  # so that readers find the first shards
            self.write_sums(whole=False)
        session.watch(self._made, self._started, self._store.uri, self._stop, self._on_progress, self._backlog.pending)
        with contextlib.closing(self._blocks(session, units)) as blocks:
            for shard, rows, summary in blocks:
                self._lock.check()
                self._made.add(summary)
                if self._backlog.done(shard, rows):
                    self._commit(shard)
                self._check_failures()

    def _blocks(self, session: Session, units: list[Unit]) -> Generator[tuple[int, int, dict[str, Any]], None, None]:
        return session.blocks(self._job, self._store.uri, self._layout, self._backlog.run, units)

    def _commit(self, shard: int) -> None:
        """Publish a shard: as a task where Ray runs, and here where it does not."""
        if self._session is None:
            self._backlog.committed(self._backlog.commit(shard), stopped=self._stop.is_set())
        else:
            executor = self._session.executor
            self._commits.append(executor.submit(commit_task, self._store.uri, self._layout, shard))

    def _finish_commits(self) -> None:
        commits, self._commits = self._commits, []
        for commit in commits:
            self._backlog.committed(commit.result(), stopped=self._stop.is_set() or self._too_many is not None)

    def _check_failures(self) -> None:
        """End the run where more rows fail than it accepts, for a reason that may pass."""
        errors, rows, failed = self._config.errors, self._made.statuses.total(), self._made.failed
        if self._too_many is None and rows >= errors.min_rows and failed > errors.max_failed_share * rows:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self._made.reasons.most_common())
            example = next(iter(self._made.examples.values()), "")
            self._too_many = (
                f"{failed} of {rows} rows failed, more than errors.max_failed_share {errors.max_failed_share:g}"
                f" ({reasons}), such as {example}; what is done is published, and the next run does them again"
            )
            self._stop_early()

    def _stop_early(self) -> None:
        if self._session is not None:
            self._session.stop()
