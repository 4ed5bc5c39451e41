"""One step of a listing: parts of a corpus are listed, and their images compared with the manifest.

It runs in the driver or as a task, so it imports little. Of the manifest it holds the index (some 100 bytes a shard), and
the few shards in whose range of names the listed images lie.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from occpipe.core.errors import first_line
from occpipe.dataset.layout import manifest_key
from occpipe.dataset.manifest import ShardInfo, manifest_table, read_index
from occpipe.dataset.parquet import read_parquet
from occpipe.io.storage import Span, Store, open_store

if TYPE_CHECKING:
    from occpipe.dataset.corpus import Corpus

THREADS = 16
"""Spans that a task lists side by side."""
_STATE = ("uri", "size", "etag")


class Known(NamedTuple):
    """The manifest of an output as it was before a listing began: shards below number `shards`. `listing` is its name."""

    output: str
    listing: str
    shards: int


class Step(NamedTuple):
    """The result of a step: images in all, rows of new ones, the state of changed ones by shard, and spans that are left.

    `passed` counts the other objects by kind.
    """

    seen: int
    new: pa.Table
    changed: dict[int, pa.Table]
    left: list[Span]
    passed: Counter[str]


class Reply(NamedTuple):
    """The steps of a task, or an error with the name of the prefix."""

    steps: list[Step]
    error: str | None = None


def list_spans(corpus: Corpus, known: Known, spans: Sequence[Span], limit: int) -> Reply:
    """List spans of a corpus side by side, up to `limit` keys of each, and divide the rest for further tasks."""

    def work(span: Span) -> Step:
        try:
            step = list_span(corpus, known, span, limit)
            return step._replace(left=divide(corpus, known, step.left))
        except Exception as error:  # each error, because the name of the prefix must stay
            raise _SpanError(span, error) from error

    try:
        with ThreadPoolExecutor(min(THREADS, len(spans))) as pool:
            return Reply(list(pool.map(work, spans)))
    except _SpanError as error:
        return Reply([], str(error))


def list_span(corpus: Corpus, known: Known, span: Span, limit: int, images: int | None = None) -> Step:
    """List up to about `limit` keys of a span, and of them only the first `images` images."""
    entries, left = _store(corpus.root, known.listing).list_keys(span, limit)
    listed, passed = corpus.images(entries)
    listed = listed[:images]
    new, changed = _compare(known, manifest_table(listed))
    return Step(len(listed), new, changed, left, passed)


def divide(corpus: Corpus, known: Known, spans: Iterable[Span]) -> list[Span]:
    """The parts of spans that can be listed side by side."""
    store = _store(corpus.root, known.listing)
    return [part for span in spans for part in store.divide(span)]


def known_rows(known: Known, first: str, last: str) -> Iterator[tuple[int, pa.Table]]:
    """The shards whose names lie between two names, in part or as a whole, with the state of their images."""
    for shard in _index(known):
        if shard.first <= last and shard.last >= first:
            yield shard.number, _rows(known, shard.number)


def has_changed(size: pa.Array, etag: pa.Array, was: pa.Table) -> pa.Array:
    """Whether images have another size or tag than they had. Where no tag is known, nothing is known to have changed."""
    differs = pc.or_(pc.not_equal(etag, was.column("etag")), pc.not_equal(size, was.column("size")))
    tagged = pc.and_(pc.not_equal(pc.fill_null(etag, ""), ""), pc.not_equal(pc.fill_null(was.column("etag"), ""), ""))
    return pc.and_(pc.fill_null(differs, False), tagged)


def _compare(known: Known, rows: pa.Table) -> tuple[pa.Table, dict[int, pa.Table]]:
    """The rows that are new, and those that changed, by their shard."""
    changed: dict[int, pa.Table] = {}
    if not len(rows) or not known.shards:
        return rows, changed
    ends = pc.min_max(rows.column("uri")).as_py()
    for shard, was in known_rows(known, ends["min"], ends["max"]):
        place = pc.index_in(rows.column("uri"), was.column("uri").combine_chunks())
        listed = pc.is_valid(place)
        there = rows.filter(listed)
        differ = there.filter(has_changed(there.column("size"), there.column("etag"), was.take(place.drop_null())))
        if len(differ):
            changed[shard] = differ
        rows = rows.filter(pc.invert(listed))
        if not len(rows):
            break
    return rows, changed


class _SpanError(Exception):
    """A part of a corpus that could not be listed."""

    def __init__(self, span: Span, error: Exception) -> None:
        super().__init__(f"{span.folder or 'the corpus'} could not be listed: {first_line(error)}")


# One store, one index and a few shards of each listing; a later listing in this process sees the manifest as it is then.
@functools.lru_cache(4)
def _store(uri: str, listing: str) -> Store:  # noqa: ARG001
    return open_store(uri)


@functools.lru_cache(2)
def _index(known: Known) -> list[ShardInfo]:
    output = _store(known.output, known.listing)
    return [shard for shard in read_index(output) if shard.number < known.shards]


@functools.lru_cache(32)
def _rows(known: Known, shard: int) -> pa.Table:
    store = _store(known.output, known.listing)
    return read_parquet(store, manifest_key(shard), _STATE)
