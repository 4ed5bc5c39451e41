"""The listing: a corpus becomes shards of the manifest, and a later listing finds what is new and what has changed.

A listing is bound by its store: a page of 1,000 keys in 50 ms is 1.4 hours for 100 million images in one thread. So parts
of the corpus are listed side by side, as up to `MAX_TASKS` tasks of `merge.THREADS` threads. Shards are written as soon as
they are full. Neither names nor ids of the corpus are held in memory, but for an explicit list, which is read whole.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from fsspec.utils import glob_translate

from occpipe.dataset.list_formats import SUFFIXES
from occpipe.dataset.manifest import (
    ChangedShards,
    NewShards,
    ShardInfo,
    load_index,
    manifest_table,
    save_index,
)
from occpipe.dataset.merge import THREADS, Known, Reply, Step, divide, has_changed, known_rows, list_span, list_spans
from occpipe.dataset.uri_list import find_list, read_list
from occpipe.errors import StorageError, first_line
from occpipe.gauges import cores
from occpipe.storage import Entry, Span, Store, locate, open_store, scheme_of, split_name, split_pattern

if TYPE_CHECKING:
    from occpipe import config

MAX_TASKS = 8
"""Tasks at once, where the driver has as many cores: more processes would only share them. Each may hold `THREADS` times
`SPAN_KEYS` rows of 120 bytes, and so may their results in the driver."""
SPAN_KEYS = 16_000
"""Keys of a span that a task lists before the rest of the span is divided."""
FEW_KEYS = 1_000
"""Keys that are looked at, at a time, until there is an image among them."""
MAX_CHANGED = 500_000
"""Changed images that are held before their shards are written."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The images below `root` in `spans`, by extension and glob pattern, or explicit `entries`."""

    root: str
    extensions: tuple[str, ...]
    spans: tuple[Span, ...] = (Span(),)
    pattern: str | None = None
    entries: tuple[Entry, ...] | None = None
    is_list: bool = False

    def images(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those objects that are images of the corpus, by their names."""
        images = [entry for entry in entries if entry.key.lower().endswith(self.extensions)]
        if self.pattern is None:
            return images
        matches = _matcher(self.pattern)
        return [entry for entry in images if matches(entry.key)]


class Listed(NamedTuple):
    """What a listing has seen so far, the shards that it added since the last one, and those with images that changed."""

    seen: int
    added: tuple[ShardInfo, ...]
    changed: tuple[int, ...]


def open_corpus(uri: str, settings: config.Corpus) -> Corpus:
    """The corpus at `uri`.

    `uri` is a folder or prefix, a glob, one image, or a list of them (see `list_formats`). A local path that exists is
    taken as it stands, whatever characters it has. Raises StorageError where it is missing or closed to us, and where no
    image is found.
    """
    extensions, place = settings.extensions, locate(uri, "INPUT")
    names = find_list(place, extensions)
    if names is not None:
        root, entries = read_list(place, names)
        return Corpus(root, extensions, entries=entries, is_list=True)
    local = Path(place)
    stands = scheme_of(place) is None and local.exists()
    folder, name = split_name(place)
    if name.lower().endswith(extensions) and not (stands and local.is_dir()):
        store = open_store(folder)
        entry = store.find(name)
        if entry is not None:
            return Corpus(store.uri, extensions, entries=(entry,))
    if stands and local.is_file():
        kinds = " ".join(extensions)
        raise StorageError(f"{uri}: by its name neither an image ({kinds}) nor a list ({' '.join(SUFFIXES)})")
    root, pattern = (place, None) if stands else split_pattern(place)
    store = open_store(root)
    store.check_readable()
    corpus = Corpus(store.uri, extensions, pattern=pattern)
    spans = list(corpus.spans)
    while spans:  # until the first image
        some, left = store.list_keys(spans.pop(0), FEW_KEYS)
        if corpus.images(some):
            return corpus
        spans[:0] = left
    raise StorageError(f"{uri}: no image there ({' '.join(extensions)})")


def check_apart(corpus: Corpus, output: str) -> None:
    """Raise StorageError where an image would be written over its source, or cleaned images would be found as input.

    A list and one image say which images they mean, and a glob without `**` looks at one level of folders, above that of
    what is written. Their outputs may lie beside their images.
    """
    is_one = corpus.entries is not None and not corpus.is_list
    if not (is_one and corpus.root == output):
        check_not_over(corpus.root, output)
    if corpus.entries is None and (corpus.pattern is None or "**" in corpus.pattern):
        check_not_inside(corpus.root, output)


def check_not_inside(root: str, output: str) -> None:
    """Raise StorageError where cleaned images would be found as input."""
    root, output = root.rstrip("/"), output.rstrip("/")
    if output.startswith(f"{root}/"):
        raise StorageError(f"{output} lies inside the input {root}: later runs would take cleaned images for photos")


def check_not_over(root: str, output: str) -> None:
    """Raise StorageError where an image would be written over its source."""
    root, output = root.rstrip("/"), output.rstrip("/")
    if root == output or re.fullmatch(rf"{re.escape(output)}/images(\.v\d+)?(/.*)?", root):
        raise StorageError(f"{output} would be written over its own input: choose another output")


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
        executor: Gives what runs tasks; asked only where the corpus has more than `shard_images` keys, and not closed.
        mark_changed: Is told of each shard with images that changed, before that shard is written.

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
    seen = 0
    for step in steps:
        seen += step.seen
        added = manifest.add(step.new)
        changes.add(step.changed)
        yield Listed(seen, added, changes.write() if changes.rows > MAX_CHANGED else ())
    yield Listed(seen, manifest.finish(), changes.write())


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
    except Exception as error:  # whatever ends a task ends the listing
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
    yield Step(len(uris), rows.slice(0, shard_images), {n: some for n, some in changed.items() if len(some)}, [])
    for start in range(shard_images, len(rows), shard_images):
        yield Step(0, rows.slice(start, shard_images), {}, [])


@functools.lru_cache(1)
def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(glob_translate(pattern)).match
