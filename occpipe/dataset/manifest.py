"""The manifest of an output: its images in shards, as they were listed, and an index of the shards."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from occpipe.core.schemas import MANIFEST as SCHEMA
from occpipe.dataset.layout import LISTING, MANIFEST, manifest_key, shard_of
from occpipe.dataset.parquet import PATIENCE_S, read_footer, read_parquet, to_parquet
from occpipe.io.storage import Entry, Store, with_retries

ROW_GROUP = 1_024
"""Rows of a row group of a shard: what a read task reads at least."""
INDEX_EVERY = 64
"""New shards after which the index is written, for drivers that follow a listing."""
_SHARD = b"occpipe.shard"
_THREADS = 16
_INDEX = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("rows", pa.int32(), nullable=False),
        pa.field("first", pa.string(), nullable=False),
        pa.field("last", pa.string(), nullable=False),
    ]
)


class ShardInfo(NamedTuple):
    """A shard of the manifest: its number, its images, and the first and last of their names."""

    number: int
    rows: int
    first: str
    last: str


def image_id(uri: str) -> int:
    """The id of an image: a 64-bit hash (BLAKE2b, signed) of its relative URI, the same on every machine.

    Two images may have one id (expected at some 5 * 10^9 images), so the key of an image is its URI.
    """
    return int.from_bytes(hashlib.blake2b(uri.encode(), digest_size=8).digest(), "little", signed=True)


def manifest_table(entries: Sequence[Entry]) -> pa.Table:
    """Objects of a store as rows of the manifest.

    A name that is not UTF-8 cannot stand in Arrow; with backslashes it is refused later, as unsafe, by name.
    """
    keys = [entry.key for entry in entries]
    try:
        uris = pa.array(keys, pa.string())
    except UnicodeEncodeError:
        uris = pa.array([key.encode("utf-8", "backslashreplace").decode() for key in keys], pa.string())
    sizes = pa.array([entry.size for entry in entries], pa.int64())
    etags = pa.array([entry.etag for entry in entries], pa.string())
    return pa.table([uris, sizes, etags], schema=SCHEMA)


def with_ids(rows: pa.Table) -> pa.Table:
    """Rows of the manifest with their ids, which a listing need not compute: 3 of its 13 us a key."""
    ids = pa.array([image_id(uri) for uri in rows.column("uri").to_pylist()], pa.int64())
    return rows.append_column("image_id", ids)


def write_shard(output: Store, number: int, rows: pa.Table) -> ShardInfo:
    """Write the images of a shard, in the order of `rows`; the same images give the same bytes."""
    ends = pc.min_max(rows.column("uri")).as_py()
    shard = ShardInfo(number, len(rows), ends["min"], ends["max"])
    about = json.dumps({"rows": shard.rows, "first": shard.first, "last": shard.last})
    data = to_parquet(rows.replace_schema_metadata({_SHARD: about}), ROW_GROUP)
    with_retries(lambda: output.write(manifest_key(number), data), patience_s=PATIENCE_S)
    return shard


def load_index(output: Store) -> list[ShardInfo]:
    """The shards of a manifest, by number: from the index, and from the footers of those that it lacks."""
    numbers = {shard for entry in output.walk(MANIFEST) if (shard := shard_of(entry.key)) is not None}
    if not numbers:
        return []
    known = {shard.number: shard for shard in read_index(output) if shard.number in numbers}

    def read(number: int) -> ShardInfo:
        return ShardInfo(number, **json.loads(read_footer(output, manifest_key(number)).metadata[_SHARD]))

    with ThreadPoolExecutor(_THREADS) as pool:
        known.update((shard.number, shard) for shard in pool.map(read, sorted(numbers - known.keys())))
    return [known[number] for number in sorted(known)]


def read_index(output: Store) -> list[ShardInfo]:
    """The shards of the index."""
    try:
        rows = read_parquet(output, LISTING, _INDEX.names).to_pylist()
    except FileNotFoundError:
        return []
    return [ShardInfo(*row.values()) for row in rows]


def save_index(output: Store, shards: Iterable[ShardInfo]) -> None:
    """Write the index of the shards, so that the next run reads one file in place of all footers."""
    rows = [dict(zip(_INDEX.names, shard, strict=True)) for shard in shards]
    data = to_parquet(pa.Table.from_pylist(rows, schema=_INDEX))
    with_retries(lambda: output.write(LISTING, data), patience_s=PATIENCE_S)


class NewShards:
    """New images on their way into shards."""

    def __init__(self, output: Store, shards: list[ShardInfo], shard_images: int) -> None:
        self._output, self._shards, self._shard_images = output, shards, shard_images
        self._indexed = len(shards)
        self._rows = SCHEMA.empty_table()

    def add(self, rows: pa.Table) -> tuple[ShardInfo, ...]:
        """Take in rows, and write those shards that are full."""
        self._rows = pa.concat_tables([self._rows, rows])
        full = len(self._rows) // self._shard_images * self._shard_images
        added = self._write([self._rows.slice(at, self._shard_images) for at in range(0, full, self._shard_images)])
        if added:
            self._rows = self._rows.slice(full).combine_chunks()
        if len(self._shards) - self._indexed >= INDEX_EVERY:
            self._save()
        return added

    def finish(self) -> tuple[ShardInfo, ...]:
        """Write what is left as the last shard, and the index."""
        added = self._write([self._rows] if len(self._rows) else [])
        if len(self._shards) > self._indexed:
            self._save()
        return added

    def _write(self, tables: list[pa.Table]) -> tuple[ShardInfo, ...]:
        first = self._shards[-1].number + 1 if self._shards else 0
        with ThreadPoolExecutor(_THREADS) as pool:
            added = tuple(pool.map(self._write_one, range(first, first + len(tables)), tables))
        self._shards += added
        return added

    def _write_one(self, number: int, rows: pa.Table) -> ShardInfo:
        rows = rows.sort_by("uri").combine_chunks()
        uris = rows.column("uri")
        again = pc.equal(uris.slice(1), uris.slice(0, len(uris) - 1))  # names that are not UTF-8 may become one
        once = pa.chunked_array([pa.array([True]), *pc.invert(again).chunks])
        return write_shard(self._output, number, rows.filter(once))

    def _save(self) -> None:
        save_index(self._output, self._shards)
        self._indexed = len(self._shards)


class ChangedShards:
    """Images that changed, on their way into their shards; `rows` of them wait."""

    def __init__(self, output: Store, mark_changed: Callable[[int], None]) -> None:
        self._output, self._mark_changed = output, mark_changed
        self._tables: dict[int, list[pa.Table]] = {}
        self.rows = 0

    def add(self, changed: dict[int, pa.Table]) -> None:
        """Take in the state of images, by shard."""
        for shard, rows in changed.items():
            self._tables.setdefault(shard, []).append(rows)
            self.rows += len(rows)

    def write(self) -> tuple[int, ...]:
        """Mark and write the shards of all that wait, and return them."""
        shards = tuple(sorted(self._tables))
        for shard in shards:  # first: a shard that is written and not marked would count as done
            with_retries(functools.partial(self._mark_changed, shard))
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._write_one, shards))
        for shard in shards:  # again: a commit that had read the shard before may have taken the marker away
            with_retries(functools.partial(self._mark_changed, shard))
        self._tables.clear()
        self.rows = 0
        return shards

    def _write_one(self, shard: int) -> None:
        rows = read_parquet(self._output, manifest_key(shard))
        now = pa.concat_tables(self._tables[shard]).combine_chunks()
        place = pc.index_in(rows.column("uri"), now.column("uri").combine_chunks())
        for name in ("size", "etag"):
            values = pc.if_else(pc.is_valid(place), now.column(name).take(place), rows.column(name))
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
        write_shard(self._output, shard, rows)
