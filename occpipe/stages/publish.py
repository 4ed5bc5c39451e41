"""publish: the parts of the ledger become one row for each image, in files sorted by image_id, with a manifest.

Equal rows give equal files, whatever the order in which they were made. Rows are sorted in slices of the id range, so
memory is bounded by `SLICE_ROWS` and not by the corpus; the parts are read once for each slice.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from occpipe.config import Config
from occpipe.ledger import part_keys, read_parquet, run_of, to_parquet
from occpipe.schemas import PUBLISHED, VERSION
from occpipe.storage import Store
from occpipe.types import Status, Verdict

METADATA = "metadata"
MANIFEST = f"{METADATA}/_manifest.json"
SLICE_ROWS = 100_000


def publish(store: Store, config: Config, models: list[dict[str, str | None]], root: str) -> dict[str, Any]:
    """Write `metadata/*.parquet` and `metadata/_manifest.json` from all parts; returns the manifest.

    New files are written before old ones go, and the manifest names those that count.
    """
    parts = part_keys(store)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    files = []
    for number, rows in enumerate(_slices(store, parts)):
        _count(rows, counts, reasons, removed)
        data = to_parquet(rows)
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"{METADATA}/{number:05d}-{sha256[:16]}.parquet"
        store.write(key, data)
        files.append({"file": key.removeprefix(f"{METADATA}/"), "rows": len(rows), "sha256": sha256})
    manifest = {
        "schema": VERSION,
        "input": root,
        "images": sum(counts.values()),
        "status": {status: counts[status] for status in Status},
        "reasons": dict(sorted(reasons.items())),
        "removed": dict(sorted(removed.items())),
        "files": files,
        "models": models,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("occpipe", "ray", "torch")}},
        "config": {"digest": config.digest, **config.model_dump(mode="json")},
    }
    store.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    current = {f"{METADATA}/{file['file']}" for file in files}
    for entry in list(store.walk(METADATA)):
        if entry.key.endswith(".parquet") and entry.key not in current:
            store.delete(entry.key)
    return manifest


def _slices(store: Store, parts: list[str]) -> Iterator[pa.Table]:
    """The rows of all parts, one for each image, in slices of rising image_id."""
    ids = np.concatenate(
        [np.empty(0, np.int64), *(read_parquet(store, p, ["image_id"]).column(0).to_numpy() for p in parts)]
    )
    if not len(ids):
        yield PUBLISHED.empty_table()
        return
    unique = np.unique(ids)
    del ids
    for start in range(0, len(unique), SLICE_ROWS):
        low, high = unique[start], unique[min(start + SLICE_ROWS, len(unique)) - 1]
        yield _newest(store, parts, int(low), int(high))


def _newest(store: Store, parts: list[str], low: int, high: int) -> pa.Table:
    """The rows with low <= image_id <= high, sorted; of several rows of an image the newest run's counts.

    Within a run a task that ran twice gives equal rows, or an error once and a result the other time: the result counts.
    """
    tables, ranks = [], []
    inside = (pc.field("image_id") >= low) & (pc.field("image_id") <= high)
    for part in parts:
        rows = read_parquet(store, part).filter(inside)
        tables.append(rows)
        ranks.append(np.full(len(rows), run_of(part), np.int64))
    table = pa.concat_tables(tables)
    ids = table.column("image_id").to_numpy()
    fine = pc.not_equal(table.column("status"), Status.ERROR).to_numpy()
    order = np.lexsort((fine, np.concatenate(ranks), ids))  # by id, then run, then whether it succeeded
    last = np.ones(len(order), bool)
    last[:-1] = ids[order][1:] != ids[order][:-1]
    return table.take(pa.array(order[last])).combine_chunks().cast(PUBLISHED)


def _count(rows: pa.Table, counts: Counter[str], reasons: Counter[str], removed: Counter[str]) -> None:
    counts.update(rows.column("status").to_pylist())
    reasons.update(reason for reason in rows.column("reason").to_pylist() if reason)
    for objects in rows.select(["objects"]).column(0).to_pylist():
        removed.update(item["label"] for item in objects or () if item["verdict"] == Verdict.REMOVE)
