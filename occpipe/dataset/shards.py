"""A shard's rows: parts while it is in work, one published file when it is committed, sums over all of them.

A part is written once its images are. `commit_shard` makes one file of the parts and of what was published before; its name
is that of the shard, so a reader of `metadata/*.parquet` sees each image at most once at every moment. What a crash
interrupts is done again with the same result: a part counts until the file that holds its rows is there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from occpipe.core.schemas import PUBLISHED
from occpipe.core.types import Status, Verdict
from occpipe.dataset.containers_commit import LostBytesError, MakeContainers
from occpipe.dataset.layout import BLOB, Layout, manifest_key, run_of, shard_of
from occpipe.dataset.parquet import PATIENCE_S, ROW_GROUP, read_footer, read_parquet, to_parquet
from occpipe.io.images import ImageReason
from occpipe.io.storage import Store, with_retries

FAULTS = (ImageReason.STAGE_FAILED, ImageReason.FORBIDDEN, ImageReason.UNREACHABLE)
"""Reasons that may pass and are no fault of the photo: too many of them end a run."""
RETRYABLE = (*FAULTS, ImageReason.ARCHIVED)
"""Reasons that may pass: rows with them are not done."""
PENDING = pa.schema([pa.field("row", pa.int32()), pa.field("earlier", pa.string())])
"""Places in the manifest shard, and the key of the image that an earlier run wrote for each."""
_SUMS = b"occpipe.sums"
_THREADS = 16
_STATE = ("uri", "etag", "status", "reason", "output")


class Commit(NamedTuple):
    """The result of a commit: images without a row of their present state, and rows with a reason that may pass."""

    shard: int
    missing: int
    failed: int


class Counts(TypedDict):
    """Images by status and by reason, and removed things by class."""

    status: dict[str, int]
    reasons: dict[str, int]
    removed: dict[str, int]


class ShardSums(Counts):
    """The sums of a published shard, which stand in its footer; `digest` is of its rows."""

    rows: int
    digest: str


class TotalSums(Counts):
    """The sums of all shards."""

    images: int


def write_part(store: Store, layout: Layout, run: int, shard: int, first_row: int, rows: pa.Table) -> str:
    """Write rows of a shard as one part; the same rows of the same run overwrite the same part. Returns its key."""
    key = layout.part(shard, run, first_row)
    _with_patience(store.write, key, to_parquet(rows))
    return key


def list_parts(store: Store, layout: Layout) -> dict[int, list[str]]:
    """The parts by shard."""
    parts: dict[int, list[str]] = {}
    for entry in store.walk(layout.all_parts):
        folder, _, name = entry.key.rpartition("/")
        shard = shard_of(folder)
        if shard is not None and name.endswith(".parquet"):
            parts.setdefault(shard, []).append(entry.key)
    return parts


def list_shards(store: Store, folder: str) -> set[int]:
    """The shards that have a file of their name in a folder."""
    return {shard for entry in store.walk(folder) if (shard := shard_of(entry.key)) is not None}


def pending_rows(store: Store, layout: Layout, shard: int, parts: Sequence[str], retry: str) -> pa.Table:
    """The rows of a shard that are not done, as `PENDING`, in the order of the manifest.

    `retry`: `none` counts every row as done whose reason is not in `RETRYABLE`, `errors` all but error rows, `all` none.
    """
    images = read_parquet(store, manifest_key(shard), ("uri", "etag"))
    rows, place = _newest(store, layout, shard, parts, images, _STATE)
    done = np.zeros(len(images), bool)
    if retry != "all":
        fine = _is_done(images, rows, place)
        if retry == "errors":
            fine &= pc.not_equal(rows.column("status"), Status.ERROR).to_numpy(zero_copy_only=False)
        done[place[fine]] = True
    earlier = np.full(len(images), None, object)
    earlier[place] = rows.column("output").to_numpy()
    open_rows = np.flatnonzero(~done).astype(np.int32)
    return pa.table([pa.array(open_rows), pa.array(earlier[open_rows], pa.string())], schema=PENDING)


def commit_shard(store: Store, layout: Layout, shard: int, containers: MakeContainers | None = None) -> Commit:
    """Make one published file of a shard's parts and of its present file, and remove the parts.

    Where images go into `containers`, these are written first, once each image has a row; until then its bytes are kept.

    The shard keeps its marker while an image has no row, or a row with a reason that may pass. The marker is written
    before the file, so that the next run examines the shard again.
    """
    files = sorted(entry.key for entry in store.walk(layout.parts(shard)))
    parts = [key for key in files if key.endswith(".parquet")]
    before = store.find(manifest_key(shard))
    images = read_parquet(store, manifest_key(shard), ("uri", "etag"))
    rows, place = _newest(store, layout, shard, parts, images, PUBLISHED.names if parts else _STATE)
    present = _is_present(images, rows, place)
    blobs: list[str] = []
    if parts and containers and present.sum() == len(images):
        try:
            rows = containers(store, layout.images, shard, rows)
            blobs = [key for key in files if key.endswith(BLOB)]
        except LostBytesError as error:  # the image is cleaned again
            rows, place = _without(rows, error.index), np.delete(place, error.index)
            present = _is_present(images, rows, place)
    failed = _failed(rows) & present
    commit = Commit(shard, len(images) - int(present.sum()), int(failed.sum()))
    if commit.missing or commit.failed:
        _with_patience(store.write, layout.open_marker(shard), b"")
    if parts:
        _with_patience(store.write, layout.rows(shard), _file_of(rows))
        with ThreadPoolExecutor(_THREADS) as pool:
            for run in sorted({run_of(part) for part in parts}):  # a crash must not leave parts of older runs alone
                list(pool.map(lambda part: _with_patience(store.delete, part), [p for p in parts if run_of(p) == run]))
            list(pool.map(lambda blob: _with_patience(store.delete, blob), blobs))  # after the rows that name them
    if not (commit.missing or commit.failed):
        _with_patience(store.delete, layout.open_marker(shard))
        if store.find(manifest_key(shard)) != before:  # the listing has met changed images meanwhile
            _with_patience(store.write, layout.open_marker(shard), b"")
    return commit


def _with_patience(call: Callable[..., None], *arguments: str | bytes) -> None:
    with_retries(lambda: call(*arguments), patience_s=PATIENCE_S)


def read_sums(store: Store, folder: str) -> dict[int, ShardSums]:
    """The sums of the published shards in a folder, from their footers."""

    def read(shard: int) -> tuple[int, ShardSums]:
        footer = read_footer(store, Layout(metadata=folder).rows(shard))
        return shard, json.loads(footer.metadata[_SUMS])

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(pool.map(read, sorted(list_shards(store, folder))))


def total(shards: Iterable[ShardSums]) -> TotalSums:
    """The sums of many shards, added up."""
    statuses, reasons, removed = Counter[str](), Counter[str](), Counter[str]()
    for sums in shards:
        statuses.update(sums["status"])
        reasons.update(sums["reasons"])
        removed.update(sums["removed"])
    return {
        "images": statuses.total(),
        "status": {status: statuses[status] for status in Status},
        "reasons": dict(sorted(reasons.items())),
        "removed": dict(sorted(removed.items())),
    }


def _newest(
    store: Store, layout: Layout, shard: int, parts: Sequence[str], images: pa.Table, columns: Sequence[str]
) -> tuple[pa.Table, NDArray[np.int64]]:
    """The rows that count, one for each image that has any, and the place of each image in the manifest.

    Of several rows of an image that of the newest run counts. A task that ran twice within a run may have failed once: then
    the result counts.
    """
    sources = [(0, layout.rows(shard))] if store.find(layout.rows(shard)) else []
    sources += [(run_of(part), part) for part in parts]
    schema = pa.schema([PUBLISHED.field(name) for name in columns])

    def read(source: tuple[int, str]) -> pa.Table:
        rows = read_parquet(store, source[1], columns)
        if "output_offset" in columns and "output_offset" not in rows.column_names:  # of version 3 of the schema
            rows = rows.append_column("output_offset", pa.nulls(len(rows), pa.int64()))
        return rows.select(columns).cast(schema)

    with ThreadPoolExecutor(_THREADS) as pool:
        tables = list(pool.map(read, sources))
    rows = pa.concat_tables([schema.empty_table(), *tables])
    runs = np.repeat([run for run, _ in sources], [len(table) for table in tables]).astype(np.int64)
    place = pc.index_in(rows.column("uri"), images.column("uri").combine_chunks())
    known = np.flatnonzero(place.is_valid().to_numpy())
    place = place.fill_null(-1).to_numpy()[known].astype(np.int64)
    fine = pc.not_equal(rows.column("status"), Status.ERROR).to_numpy()[known]
    order = np.lexsort((fine, runs[known], place))
    last = np.ones(len(order), bool)
    last[:-1] = place[order][1:] != place[order][:-1]
    chosen = order[last]
    return rows.take(pa.array(known[chosen])).combine_chunks(), place[chosen]


def _without(rows: pa.Table, index: int) -> pa.Table:
    return pa.concat_tables([rows.slice(0, index), rows.slice(index + 1)])


def _is_present(images: pa.Table, rows: pa.Table, place: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows are of the present state of their image; an image of a list has no tag, and no other state."""
    now = pc.fill_null(images.column("etag").take(pa.array(place)), "")
    return np.asarray(pc.equal(pc.fill_null(rows.column("etag"), ""), now).to_numpy(), bool)


def _failed(rows: pa.Table) -> NDArray[np.bool_]:
    reasons = pa.array([str(reason) for reason in RETRYABLE])
    return np.asarray(pc.is_in(rows.column("reason"), reasons).to_numpy(), bool)


def _is_done(images: pa.Table, rows: pa.Table, place: NDArray[np.int64]) -> NDArray[np.bool_]:
    return _is_present(images, rows, place) & ~_failed(rows)


def _file_of(rows: pa.Table) -> bytes:
    """The bytes of a published file: sorted by id, with its sums in the footer; equal rows give equal bytes."""
    rows = rows.sort_by([("image_id", "ascending"), ("uri", "ascending")]).combine_chunks()
    rows = rows.replace_schema_metadata(None)
    objects = pc.list_flatten(rows.column("objects"))
    removed = objects.filter(pc.equal(pc.struct_field(objects, "verdict"), Verdict.REMOVE))
    sums = {
        "rows": len(rows),
        "status": _counts(rows.column("status")),
        "reasons": _counts(rows.column("reason").drop_null()),
        "removed": _counts(pc.struct_field(removed, "label")),
        "digest": _digest(rows),
    }
    metadata = {**(PUBLISHED.metadata or {}), _SUMS: json.dumps(sums, sort_keys=True)}
    return to_parquet(rows.replace_schema_metadata(metadata), ROW_GROUP)


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(values).to_pylist()}


def _digest(rows: pa.Table) -> str:
    """Hex digits of a hash over rows, independent of the file that holds them."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return hashlib.sha256(sink.getvalue()).hexdigest()[:32]
