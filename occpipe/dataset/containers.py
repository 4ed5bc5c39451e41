"""The listing of a corpus of containers: the images of each are found, and whole containers become shards of the manifest.

    list     keys of the corpus -> containers that are new or have another tag    the thread of the listing
    index    a container -> its images, with their places                         the first ones there, others in tasks
    shard    whole containers, up to `shard.images` images or one container

A container is read once for its index: a tar from header to header, and of a Parquet file the footer. It stays in the shard
in which it was first listed.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from occpipe.core.errors import StorageError, first_line
from occpipe.core.schemas import MANIFEST
from occpipe.dataset.corpus import Corpus, bounded
from occpipe.dataset.layout import PASSED_OVER, manifest_key
from occpipe.dataset.listing import Listed
from occpipe.dataset.manifest import ShardInfo, load_index, save_index, write_shard
from occpipe.dataset.parquet import read_parquet
from occpipe.io.containers import index, place_of, split_uri
from occpipe.io.storage import Entry, Store, open_store, with_retries

AT_ONCE = 8
"""Containers that a task indexes side by side, and tasks at once."""
FIRST = 4
"""Containers that are indexed in the listing's own thread, so that work begins before Ray is asked for tasks."""
KEYS = 16_000
PATIENCE_S = 300.0
NUMBER_SIGN = "names with #"


def list_containers(
    corpus: Corpus,
    output: Store,
    shard_images: int,
    limit: int | None,
    executor: Callable[[], Executor],
    mark_changed: Callable[[int], None],
) -> Iterator[Listed]:
    """Bring the manifest up to date with a corpus of containers; see `occpipe.dataset.listing.list_corpus`.

    With `limit` containers are listed until they have so many images. Where the tag of a container has changed, its rows
    are replaced in its shard.

    Raises:
        StorageError: A container cannot be read; the message names it.
    """
    shards, passed, seen = load_index(output), Counter[str](), 0
    known = _known(output, shards)
    new, changed = _Shards(output, shards, shard_images), dict[int, dict[str, pa.Table]]()
    for entry, table in _indexed(corpus, known, passed, executor):
        seen += known[entry.key].images if table is None else len(table)
        added: tuple[ShardInfo, ...] = ()
        if table is not None and len(table):
            if entry.key in known:
                changed.setdefault(known[entry.key].shard, {})[entry.key] = table
            else:
                added = new.add(table)
        yield Listed(seen, added, ())
        if limit is not None and seen >= limit:
            break
    added = new.finish()
    with_retries(lambda: output.write(PASSED_OVER, json.dumps(bounded(passed)).encode()))
    replaced = tuple(_replace(output, shard, tables, mark_changed) for shard, tables in sorted(changed.items()))
    if added or replaced or new.added:
        save_index(output, load_index(output))
    yield Listed(seen, (*added, *replaced), tuple(sorted(changed)))


class _Shards:
    """Containers on their way into new shards."""

    def __init__(self, output: Store, shards: Sequence[ShardInfo], shard_images: int) -> None:
        self._output, self._most = output, shard_images
        self._next = shards[-1].number + 1 if shards else 0
        self._tables: list[pa.Table] = []
        self._rows = self.added = 0

    def add(self, table: pa.Table) -> tuple[ShardInfo, ...]:
        """Take a container in; the shard before it is written where it would have too many images with it."""
        full = self.finish() if self._rows and self._rows + len(table) > self._most else ()
        self._tables.append(table)
        self._rows += len(table)
        return (*full, *(self.finish() if self._rows >= self._most else ()))

    def finish(self) -> tuple[ShardInfo, ...]:
        """Write what waits as a shard."""
        if not self._tables:
            return ()
        shard = write_shard(self._output, self._next, pa.concat_tables(self._tables).combine_chunks())
        self._tables, self._rows = [], 0
        self._next += 1
        self.added += 1
        return (shard,)


class _Known(NamedTuple):
    """A container of the manifest: its shard, the tag with which it was listed, and its images."""

    shard: int
    tag: str
    images: int

    def differs(self, tag: str) -> bool:
        """Whether it has changed. Where no tag is known, nothing is known to have changed."""
        return bool(tag and self.tag and tag != self.tag)


def _known(output: Store, shards: Sequence[ShardInfo]) -> dict[str, _Known]:
    """The containers of a manifest."""

    def read(shard: ShardInfo) -> dict[str, _Known]:
        rows = read_parquet(output, manifest_key(shard.number), ("uri", "etag"))
        keys = Counter(split_uri(uri)[0] for uri in rows.column("uri").to_pylist())
        tags: dict[str, str] = {}
        for uri, tag in zip(*(rows.column(name).to_pylist() for name in ("uri", "etag")), strict=True):
            place = place_of(tag)
            tags.setdefault(split_uri(uri)[0], place.etag if place else "")
        return {key: _Known(shard.number, tags[key], count) for key, count in keys.items()}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {key: item for part in pool.map(read, shards) for key, item in part.items()}


def _entries(corpus: Corpus, passed: Counter[str]) -> Iterator[Entry]:
    """The containers of a corpus, in the order of their keys."""
    store, spans = open_store(corpus.root), list(corpus.spans) if corpus.entries is None else []
    pages: list[Sequence[Entry]] = [corpus.entries or ()]
    while pages or spans:
        if not pages:
            page, left = store.list_keys(spans.pop(0), KEYS)
            spans[:0] = left
            images, others = corpus.images(page)
            pages.append(images)
            passed.update(others)
        for entry in pages.pop():
            if "#" in entry.key:  # it parts the container from the image in a URI
                passed[NUMBER_SIGN] += 1
            else:
                yield entry


def _indexed(
    corpus: Corpus, known: dict[str, _Known], passed: Counter[str], executor: Callable[[], Executor]
) -> Iterator[tuple[Entry, pa.Table | None]]:
    """The containers, each with its images where it is new or has changed; new ones in the order of their keys."""
    batch: list[Entry] = []
    tasks: deque[tuple[list[Entry], Future[list[pa.Table]]]] = deque()
    first = FIRST
    try:
        for entry in _entries(corpus, passed):
            if entry.key in known and not known[entry.key].differs(entry.etag):
                yield entry, None
            elif first:
                first -= 1
                yield entry, index_some(corpus, [entry])[0]
            else:
                batch.append(entry)
            if len(batch) == AT_ONCE:
                tasks.append((batch, executor().submit(index_some, corpus, batch)))
                batch = []
            if len(tasks) > AT_ONCE:
                entries, future = tasks.popleft()
                yield from zip(entries, future.result(), strict=True)
        if batch:
            tasks.append((batch, executor().submit(index_some, corpus, batch)))
        while tasks:
            entries, future = tasks.popleft()
            yield from zip(entries, future.result(), strict=True)
    finally:
        for _, future in tasks:
            future.cancel()


def index_some(corpus: Corpus, entries: Sequence[Entry]) -> list[pa.Table]:
    """The images of some containers as rows of the manifest, side by side; StorageError where one cannot be read."""
    store = open_store(corpus.root)

    def work(entry: Entry) -> pa.Table:
        try:
            return with_retries(lambda: _index(corpus, store, entry), patience_s=PATIENCE_S)
        except FileNotFoundError:
            return MANIFEST.empty_table()  # it is gone
        except OSError as error:
            raise StorageError(f"{store.url(entry.key)} cannot be read: {first_line(error)}") from error

    with ThreadPoolExecutor(min(AT_ONCE, len(entries))) as pool:
        return list(pool.map(work, entries))


def _index(corpus: Corpus, store: Store, entry: Entry) -> pa.Table:
    now = store.find(entry.key)  # its tag is that of what is read next; an explicit entry has none
    if now is None:
        raise FileNotFoundError(entry.key)
    with store.open(entry.key) as file:
        members = index(file, entry.key, now.size or 0, now.etag, corpus.column, corpus.is_member)
    uris = [f"{entry.key}#{member.name}" for member in members]
    return pa.table([uris, [m.size for m in members], [str(m.place) for m in members]], schema=MANIFEST)


def _replace(output: Store, shard: int, tables: dict[str, pa.Table], mark_changed: Callable[[int], None]) -> ShardInfo:
    """Put the images of changed containers into their shard, in the place of the old ones."""
    rows = read_parquet(output, manifest_key(shard)).cast(MANIFEST)
    keys = [split_uri(uri)[0] for uri in rows.column("uri").to_pylist()]
    parts = [tables.get(key, rows.filter(pc.equal(pa.array(keys), key))) for key in dict.fromkeys(keys)]
    with_retries(lambda: mark_changed(shard))  # first: a shard that is written and not marked would count as done
    info = write_shard(output, shard, pa.concat_tables(parts).combine_chunks())
    with_retries(lambda: mark_changed(shard))  # again: a commit that had read it before may have taken the mark away
    return info
