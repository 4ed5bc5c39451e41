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
import os
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event

import pyarrow as pa

from occpipe.config import Config
from occpipe.crew import Crew
from occpipe.done import IndexWriter, load_done
from occpipe.errors import RunError
from occpipe.ledger import OutputLock, next_run
from occpipe.models import identities, load_relations
from occpipe.stages.discover import Discovery, check_apart, discover, manifest_rows, open_corpus
from occpipe.stages.fetch import Fetch
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.publish import publish
from occpipe.stages.relate import Relate
from occpipe.stages.segment import SegmentStage
from occpipe.stages.sink import Sink
from occpipe.storage import open_store
from occpipe.summary import Made, Summary, Tick
from occpipe.versions import open_version

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
            sink = Sink(store.uri, version.images, run, config.output.unchanged, config.placement.sink.threads)
            engine = _with_ray if needs_ray(config, found.pending) else _without_ray
            with engine(config, found, sink, stop) as batches:
                on_progress(Tick(made.statuses, found.pending, time.monotonic() - started))
                for batch in batches:
                    lock.check()
                    made.add(batch)
                    index.add(batch)
                    on_progress(Tick(made.statuses, found.pending, time.monotonic() - started))
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
    return Summary(made.statuses, made.examples, found.seen - found.pending, seconds, manifest, stopped=stopped)


def needs_ray(config: Config, images: int) -> bool:
    """Whether a run is for Ray: it runs or has an address, GPUs are to be shared, or the corpus is worth its start."""
    at, ray = config.placement, sys.modules.get("ray")
    address = config.ray.address or os.environ.get("RAY_ADDRESS") or (ray and ray.is_initialized())
    return bool(address or at.segment.num_gpus or at.inpaint.num_gpus or images >= config.ray.from_images)


@contextlib.contextmanager
def _without_ray(config: Config, found: Discovery, sink: Sink, stop: Event | None) -> Iterator[Iterator[pa.Table]]:
    crew = Crew(config, found.root, sink, found.pending, stop)
    with contextlib.closing(crew.rows(manifest_rows(open_store(sink.output), found))) as batches:
        yield batches


@contextlib.contextmanager
def _with_ray(config: Config, found: Discovery, sink: Sink, stop: Event | None) -> Iterator[Iterator[pa.Table]]:
    from occpipe.on_ray import on_ray  # whose import takes seconds

    with on_ray(config, found, sink, stop) as batches:
        yield batches
