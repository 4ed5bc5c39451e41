"""The listing: a corpus becomes shards of the manifest, and a later listing finds what is new and what has changed.

A listing is bound by its store: a page of 1,000 keys in 50 ms is 1.4 hours for 100 million images in one thread. So parts
of the corpus are listed side by side, in up to `MAX_TASKS` tasks of `merge.THREADS` threads. Shards are written as soon as
they are full. Memory holds neither names nor ids of the corpus, except those of an explicit list.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from occpipe.core.errors import StorageError, first_line
from occpipe.core.resources import cores
from occpipe.dataset.corpus import Corpus, bounded
from occpipe.dataset.layout import PASSED_OVER
from occpipe.dataset.manifest import (
    ChangedShards,
    NewShards,
    ShardInfo,
    load_index,
    manifest_table,
    save_index,
)
from occpipe.dataset.merge import THREADS, Known, Reply, Step, divide, has_changed, known_rows, list_span, list_spans
from occpipe.io.storage import Entry, Span, Store, with_retries

MAX_TASKS = 8
"""Tasks at once, where the driver has as many cores: more processes would only share them. Each may hold `THREADS` times
`SPAN_KEYS` rows of 120 bytes, and so may their results in the driver."""
SPAN_KEYS = 16_000
"""Keys of a span that a task lists before the rest of the span is divided."""
MAX_CHANGED = 500_000
"""Changed images that are held before their shards are written."""


class Listed(NamedTuple):
    """Images that are listed so far; shards that are new since the last step, and shards with changed images."""

    seen: int
    added: tuple[ShardInfo, ...]
    changed: tuple[int, ...]


def list_corpus(
    corpus: Corpus,
    output: Store,
    shard_images: int,
    limit: int | None,
    executor: Callable[[], Executor],
    mark_changed: Callable[[int], None],
) -> Iterator[Listed]:
    """List a corpus and bring the manifest of an output up to date.

    New images go to new shards, sorted by name within each; the size and tag of changed ones are replaced in their shard;
    images that are gone stay. Equal corpora and manifests give equal shards.

    Args:
        corpus: The images.
        output: The output that has the manifest.
        shard_images: Images of a shard.
        limit: List only so many images of the corpus, the first ones; None: all.
        executor: Gives the executor of tasks, where the corpus has more than `shard_images` keys; it is not closed.
        mark_changed: Called for each shard with changed images, before that shard is written.

    Yields:
        What was seen and written, step by step.

    Raises:
        StorageError: A part of the corpus cannot be listed; the message names it.
    """
    shards = load_index(output)
    known = Known(output.uri, secrets.token_hex(8), shards[-1].number + 1 if shards else 0)
    if shards:
        save_index(output, shards)  # for the tasks
    manifest, changes = NewShards(output, shards, shard_images), ChangedShards(output, mark_changed)
    if corpus.entries is not None:
        steps = _of_entries(corpus.entries[:limit], known, shard_images)
    elif limit is not None:
        steps = _first(corpus, known, limit)
    else:
        steps = _side_by_side(corpus, known, shard_images, executor)
    seen, passed = 0, Counter[str]()
    for step in steps:
        seen += step.seen
        passed += step.passed
        added = manifest.add(step.new)
        changes.add(step.changed)
        yield Listed(seen, added, changes.write() if changes.rows > MAX_CHANGED else ())
    added = manifest.finish()
    with_retries(lambda: output.write(PASSED_OVER, json.dumps(bounded(passed)).encode()))
    yield Listed(seen, added, changes.write())


def _side_by_side(corpus: Corpus, known: Known, shard_images: int, executor: Callable[[], Executor]) -> Iterator[Step]:
    """The steps of a listing, in an order that depends on the corpus alone: first here, then in tasks."""
    first = list_span(corpus, known, corpus.spans[0], shard_images)
    yield first
    spans = deque(divide(corpus, known, [*first.left, *corpus.spans[1:]]))
    tasks: deque[tuple[list[Span], Future[Reply]]] = deque()
    pool, at_once = executor() if spans else None, max(2, min(MAX_TASKS, cores()))
    try:
        while pool and (spans or tasks):
            while spans and len(tasks) < at_once:
                # Few full tasks: Ray starts a process for each, which costs seconds of imports.
                some = [spans.popleft() for _ in range(min(THREADS, len(spans)))]
                tasks.append((some, pool.submit(list_spans, corpus, known, some, SPAN_KEYS)))
            for step in _result(corpus, *tasks.popleft()):
                yield step
                spans.extend(step.left)
    finally:
        for _, future in tasks:
            future.cancel()


def _result(corpus: Corpus, spans: list[Span], future: Future[Reply]) -> list[Step]:
    try:
        reply = future.result()
    except Exception as error:  # each error of a task ends the listing
        folders = ", ".join(sorted({span.folder for span in spans}))
        raise StorageError(f"{corpus.root}: {folders} could not be listed: {first_line(error)}") from error
    if reply.error is not None:
        raise StorageError(f"{corpus.root}: {reply.error}")
    return reply.steps


def _first(corpus: Corpus, known: Known, limit: int) -> Iterator[Step]:
    """The first images of a corpus, one span after the other."""
    spans = list(corpus.spans)
    while spans and limit > 0:
        step = list_span(corpus, known, spans.pop(0), SPAN_KEYS, limit)
        yield step
        spans[:0] = step.left
        limit -= step.seen


def _of_entries(entries: Sequence[Entry], known: Known, shard_images: int) -> Iterator[Step]:
    """The images of an explicit list: all shards in its range are looked through once."""
    table, changed = manifest_table(entries), dict[int, pa.Table]()
    uris = table.column("uri").to_pylist()
    places = {uri: place for place, uri in enumerate(uris)}
    new = np.zeros(len(uris), bool)
    new[list(places.values())] = True  # two names that are not UTF-8 may become one
    for shard, was in known_rows(known, min(uris), max(uris)) if uris else ():
        there = pa.array([places.get(uri) for uri in was.column("uri").to_pylist()], pa.int64())
        was, there = was.filter(there.is_valid()), there.drop_null()
        now = table.take(there)
        new[there.to_numpy()] = False
        changed[shard] = now.filter(has_changed(now.column("size"), now.column("etag"), was))
    rows = table.filter(pa.array(new))
    differ = {shard: some for shard, some in changed.items() if len(some)}
    yield Step(len(uris), rows.slice(0, shard_images), differ, [], Counter())
    for start in range(shard_images, len(rows), shard_images):
        yield Step(0, rows.slice(start, shard_images), {}, [], Counter())
