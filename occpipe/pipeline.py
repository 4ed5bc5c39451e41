"""The main job, in data order. One image is one row, and a row is never lost: what fails ends as an error row.

    1 discover  1:0..1  corpus -> manifest of what is to do  driver, bound by the listing
    2 fetch     1:1     encoded bytes from storage           CPU tasks, bound by the network
    3 segment   1:1     segments and stuff                   GPU pool A, bound by the forward pass
    4 relate    1:1     verdicts and the removal mask        CPU tasks, milliseconds an image
    5 inpaint   1:1     the cleaned picture, where masked    GPU pool B, bound by the model on crops
    6 sink      1:1     image first, then its row            CPU tasks, bound by the network
    7 publish   n:1     one row an image, with a manifest    driver

Two pools, because the stages differ in how many images need them: segment sees each, inpaint only those with a removal.
Between stages travel encoded bytes and run-length masks, never full-size arrays: a 12 MP photo is 3 MB, not 36.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy
from ray.exceptions import RayError

from occpipe.capacity import check_capacity
from occpipe.cluster import configure_data, ray_session
from occpipe.config import Config, PoolPlacement, TaskPlacement
from occpipe.done import IndexWriter, load_done
from occpipe.errors import RunError
from occpipe.journal import Guard, GuardedInpaint, GuardedSegment, StoppableFetch, Timed, start_journal
from occpipe.ledger import OutputLock, next_run
from occpipe.models import identities, load_relations
from occpipe.stages.discover import Discovery, ManifestSource, check_apart, discover, open_corpus
from occpipe.stages.fetch import Fetch
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.publish import publish
from occpipe.stages.relate import Relate
from occpipe.stages.segment import SegmentStage
from occpipe.stages.sink import Sink
from occpipe.storage import open_store
from occpipe.summary import Made, Summary, Tick
from occpipe.versions import open_version
from occpipe.watch import watching

_RAISED = re.compile(r"(?!ray\.)[\w.]*(Error|Exception): ")  # how a traceback ends, but for Ray's around it

CHAIN = (Fetch, SegmentStage, Relate, InpaintStage, Sink)
"""The stages between discover and publish, in order."""


def clean_corpus(
    config: Config,
    input_uri: str,
    output_uri: str,
    *,
    limit: int | None = None,
    new_version: bool = False,
    on_progress: Callable[[Tick], None] = lambda _: None,
    stop: Event | None = None,
) -> Summary:
    """Clean all images below `input_uri` into `output_uri`; what is done there already is not done again.

    Where the output was made with other settings or weights, `new_version` makes it anew beside what is published.
    Once `stop` is set no image is begun any more; what was begun is finished and published, and the summary says so.
    Raises ConfigError, StorageError, WeightsError, CapacityError or OutputBusyError before the first image; later RunError
    where a worker failed for good or a row is missing, OutputBusyError where another run took the output over meanwhile.
    """
    started = time.monotonic()
    models = identities(config)
    store = open_store(output_uri)
    root, entries = open_corpus(input_uri, config.corpus)
    check_apart(input_uri, root, store.uri)
    load_relations(config.relations)
    with OutputLock(store) as lock:
        version, run = open_version(store, config, models, root, new=new_version), next_run(store)
        done = load_done(store, config.output.retry, version.first_run)
        found = discover(root, entries, store, done, run, limit)
        made, index = Made(), IndexWriter(store, run)
        if found.pending:
            with ray_session(config.ray), _one_line():
                check_capacity(config.placement, config.ray.capacity_timeout_s)
                journal = start_journal()
                sink = Sink(store.uri, version.images, run, config.output.unchanged, config.placement.sink.threads)
                rows, at = build(config, found, sink, journal), config.placement
                with watching(made, found.pending, started, journal, at, store.uri, stop, on_progress):
                    for batch in rows.iter_batches(batch_format="pyarrow", batch_size=None):
                        lock.check()
                        made.add(batch)
                        index.add(batch)
        index.flush()
        lock.confirm()
        whole = limit is None and made.statuses.total() == found.pending
        manifest = publish(store, config, models, found.root, version, whole=whole)
    rows_made, published = made.statuses.total(), manifest["images"]
    stopped = stop is not None and stop.is_set() and rows_made < found.pending
    missed = manifest["version"] == version.number and published < found.seen  # an older one may still stand
    if not stopped and (rows_made < found.pending or missed):
        counts = f"{rows_made} of {found.pending} rows were made, {published} of {found.seen} published"
        raise RunError(f"{counts}; do all nodes write to the same {store.uri}?")
    seconds = time.monotonic() - started
    return Summary(made.statuses, made.examples, found.seen - found.pending, seconds, manifest, stopped, made.over_all)


def build(config: Config, found: Discovery, sink: Sink, journal: Any) -> Dataset:
    """The data set of thin rows; nothing runs before it is read."""
    configure_data(config.ray)
    at = config.placement
    rows = ray.data.read_datasource(ManifestSource(sink.output, found))
    fetch = StoppableFetch(found.root, config.corpus, at.fetch.threads, journal)
    rows = _tasks(rows, Timed("fetch", fetch, journal), at.fetch)  # 2
    rows = _pool(rows, GuardedSegment, config, journal, at.segment)  # 3
    rows = _tasks(rows, Timed("relate", Relate(config), journal), at.relate)  # 4
    rows = _pool(rows, GuardedInpaint, config, journal, at.inpaint)  # 5
    return _tasks(rows, Timed("sink", sink, journal), at.sink)  # 6


def _tasks(rows: Dataset, stage: Timed, at: TaskPlacement) -> Dataset:
    return rows.map_batches(
        stage.__call__,  # a bound method: Ray takes an instance for the constructor of an actor
        batch_size=at.batch_size,
        batch_format="pyarrow",
        **at.ray_options(),
        compute=TaskPoolStrategy(at.max_tasks),
    )


def _pool(rows: Dataset, stage: type[Guard], config: Config, journal: Any, at: PoolPlacement) -> Dataset:
    return rows.map_batches(
        stage,
        fn_constructor_args=(config, journal),
        batch_size=at.batch_size,
        batch_format="pyarrow",
        **at.ray_options(),
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
