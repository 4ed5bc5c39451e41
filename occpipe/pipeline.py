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
2 to 6 run on Ray (`occpipe.on_ray`), or, where that is not worth its start, in processes of this machine (`occpipe.crew`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Unpack

import pyarrow as pa

from occpipe.config import Config
from occpipe.crew import Crew
from occpipe.done import IndexWriter, load_done
from occpipe.errors import RunError
from occpipe.ledger import OutputLock, next_run
from occpipe.models import load_relations
from occpipe.placing import wants_ray
from occpipe.recipe import Options, Recipe, Work, of_corpus
from occpipe.stages.discover import discover, manifest_rows
from occpipe.stages.fetch import Fetch
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.publish import publish
from occpipe.stages.relate import Relate
from occpipe.stages.segment import SegmentStage
from occpipe.stages.sink import Sink
from occpipe.storage import open_store
from occpipe.summary import Made, Summary, Tick
from occpipe.versions import SCAN, open_version
from occpipe.watch import Watch

CHAIN = (Fetch, SegmentStage, Relate, InpaintStage, Sink)
"""The stages between discover and publish, in order."""
SCAN_CHAIN = (Fetch, SegmentStage, Relate, Sink)


def clean_corpus(config: Config, input_uri: str, output_uri: str, **options: Unpack[Options]) -> Summary:
    """Clean all images below `input_uri` into `output_uri`; the options and errors are those of `run`."""
    return run(of_corpus(config, input_uri, output_uri), config, output_uri, **options)


def scan_corpus(config: Config, input_uri: str, output_uri: str, **options: Unpack[Options]) -> Summary:
    """Decide for all images what `clean_corpus` would remove, and write rows only."""
    return run(of_corpus(config, input_uri, output_uri, scan=True), config, output_uri, **options)


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
    where a worker failed for good or a row is missing, OutputBusyError where another run took the output over meanwhile;
    what `on_progress` raises, once what was made is published.
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
            sink = Sink(store.uri, images, number, config.output.unchanged, config.placement.sink.threads)
            on_ray = recipe.build is not None or needs_ray(config, found.pending)
            watch = Watch(made, found.pending, started, config.placement if on_ray else None, recipe.stages)
            work = Work(recipe, config, found, sink, watch, on_progress, stop)
            with _with_ray(work) if on_ray else _without_ray(work) as batches:
                for batch in batches:
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
    if made.unwatched:
        raise made.unwatched
    return Summary(made, found.seen - found.pending, time.monotonic() - started, manifest, stopped=stopped)


def needs_ray(config: Config, images: int) -> bool:
    """Whether a run is for Ray: one runs here already or the environment names one, or the config asks for it."""
    ray = sys.modules.get("ray")
    reachable = os.environ.get("RAY_ADDRESS") or (ray and ray.is_initialized())
    return bool(reachable or wants_ray(config, images))


@contextlib.contextmanager
def _without_ray(work: Work) -> Iterator[Iterator[pa.Table]]:
    crew = Crew(work.config, work.found.root, work.sink, work.found.pending, work.stop)
    manifest = manifest_rows(open_store(work.sink.output), work.found)
    with contextlib.closing(crew.rows(manifest)) as batches:
        yield work.watch.along(batches, crew.figures, work.on_progress)


@contextlib.contextmanager
def _with_ray(work: Work) -> Iterator[Iterator[pa.Table]]:
    from occpipe.on_ray import on_ray  # whose import takes seconds

    with on_ray(work) as batches:
        yield batches
