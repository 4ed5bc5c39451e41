"""The main job, in data order. One image is one row, and a row is never lost: what fails ends as an error row.

    1 discover  1:0..1  corpus -> manifest of what is to do  driver, bound by the listing
    2 fetch     1:1     encoded bytes from storage           CPU tasks, bound by the network
    3 segment   1:1     segments and stuff                   GPU pool A, bound by the forward pass
    4 relate    1:1     verdicts and the removal mask        CPU tasks, milliseconds an image
    5 inpaint   1:1     the cleaned picture, where masked    GPU pool B, bound by the model on crops
    6 sink      1:1     image first, then its row            CPU tasks, bound by the network
    7 publish   n:1     one row an image, with a manifest    driver

A scan leaves out 5, and its sink writes rows only. `occpipe.apply` decides again on such rows.

Two pools, because the stages differ in how many images need them: segment sees each, inpaint only those with a removal.
Between stages travel encoded bytes and run-length masks, never full-size arrays: a 12 MP photo is 3 MB, not 36.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any, Unpack

import ray.data
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from occpipe.capacity import check_capacity
from occpipe.cluster import configure_data, one_line_failures, ray_session
from occpipe.config import Config, PoolPlacement, TaskPlacement
from occpipe.done import IndexWriter, load_done
from occpipe.errors import RunError
from occpipe.journal import Guard, GuardedInpaint, GuardedSegment, Stoppable, Timed, start_journal
from occpipe.ledger import OutputLock, next_run
from occpipe.models import load_relations
from occpipe.recipe import Options, Recipe, Stage, of_corpus
from occpipe.stages.discover import Discovery, ManifestSource, discover
from occpipe.stages.fetch import Fetch
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.publish import publish
from occpipe.stages.relate import Relate
from occpipe.stages.segment import SegmentStage
from occpipe.stages.sink import Sink
from occpipe.storage import open_store
from occpipe.summary import Made, Summary, Tick
from occpipe.versions import SCAN, open_version
from occpipe.watch import Watch, watching

CHAIN = (Fetch, SegmentStage, Relate, InpaintStage, Sink)
"""The stages between discover and publish, in order."""
SCAN_CHAIN = (Fetch, SegmentStage, Relate, Sink)


def clean_corpus(config: Config, input_uri: str, output_uri: str, **options: Unpack[Options]) -> Summary:
    """Clean all images below `input_uri` into `output_uri`; the options and errors are those of `run`."""
    return run(of_corpus(config, input_uri, output_uri, build), config, output_uri, **options)


def scan_corpus(config: Config, input_uri: str, output_uri: str, **options: Unpack[Options]) -> Summary:
    """Decide for all images what `clean_corpus` would remove, and write rows only."""
    return run(of_corpus(config, input_uri, output_uri, build, scan=True), config, output_uri, **options)


def run(
    recipe: Recipe,
    config: Config,
    output_uri: str,
    *,
    limit: int | None = None,
    new_version: bool = False,
    on_progress: Callable[[Tick], None] = lambda _: None,
    stop: Event | None = None,
) -> Summary:
    """Make and publish the rows of a recipe; what is done in `output_uri` already is not done again.

    Where the output was made in another way, `new_version` makes it anew beside what is published.
    Once `stop` is set no image is begun any more; what was begun is finished and published, and the summary says so.
    Raises ConfigError, StorageError, WeightsError, CapacityError or OutputBusyError before the first image; later RunError
    where a worker failed for good or a row is missing, OutputBusyError where another run took the output over meanwhile.
    """
    started = time.monotonic()
    store = open_store(output_uri)
    load_relations(config.relations)
    with OutputLock(store) as lock:
        version = open_version(store, config, recipe.models, recipe.root, recipe.origin, new=new_version)
        number, images = next_run(store), None if recipe.origin == SCAN else version.images
        done = load_done(store, config.output.retry, version.first_run)
        found = discover(recipe.root, recipe.entries, store, done, number, limit)
        made, index = Made(), IndexWriter(store, number)
        if found.pending:
            with ray_session(config.ray), one_line_failures():
                check_capacity(config.placement, config.ray.capacity_timeout_s, recipe.stages)
                journal = start_journal()
                sink = Sink(store.uri, images, number, config.output.unchanged, config.placement.sink.threads)
                rows = recipe.build(config, found, sink, journal)
                watch = Watch(made, found.pending, started, config.placement, recipe.stages)
                with watching(watch, journal, store.uri, stop, on_progress):
                    for batch in rows.iter_batches(batch_format="pyarrow", batch_size=None):
                        lock.check()
                        made.add(batch)
                        index.add(batch)
        index.flush()
        lock.confirm()
        whole = limit is None and made.statuses.total() == found.pending
        manifest = publish(store, config, recipe.models, found.root, version, recipe.origin, whole=whole)
    rows_made, published = made.statuses.total(), manifest["images"]
    stopped = stop is not None and stop.is_set() and rows_made < found.pending
    missed = manifest["version"] == version.number and published < found.seen  # an older one may still stand
    if not stopped and (rows_made < found.pending or missed):
        counts = f"{rows_made} of {found.pending} rows were made, {published} of {found.seen} published"
        raise RunError(f"{counts}; do all nodes write to the same {store.uri}?")
    return Summary(made, found.seen - found.pending, time.monotonic() - started, manifest, stopped=stopped)


def build(config: Config, found: Discovery, sink: Sink, journal: Any) -> Dataset:
    """The data set of thin rows; nothing runs before it is read."""
    configure_data(config.ray)
    at = config.placement
    rows = ray.data.read_datasource(ManifestSource(sink.output, found))
    fetch = Stoppable(Fetch(found.root, config.corpus, at.fetch.threads), journal)
    rows = in_tasks(rows, Timed("fetch", fetch, journal), at.fetch)  # 2
    rows = in_pool(rows, GuardedSegment, config, journal, at.segment)  # 3
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


def in_pool(rows: Dataset, stage: type[Guard], config: Config, journal: Any, at: PoolPlacement) -> Dataset:
    """The rows after a stage that runs in an actor pool."""
    return rows.map_batches(
        stage,
        fn_constructor_args=(config, journal),
        batch_size=at.batch_size,
        batch_format="pyarrow",
        **at.ray_options(),
        compute=ActorPoolStrategy(min_size=at.min_size, max_size=at.max_size, initial_size=at.initial_size),
        max_task_retries=-1,  # a task holds many batches, and the journal ends what would repeat for ever
    )
