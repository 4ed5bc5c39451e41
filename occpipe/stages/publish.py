"""publish: the parts of the ledger become one row for each image, in files sorted by image_id, with a manifest.

Equal rows give equal files, whatever the order in which they were made. Rows are sorted in slices of the id range, so
memory holds one slice, of 20,000 rows for up to 5 million images; the parts are read once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from occpipe import __version__
from occpipe.config import Config
from occpipe.done import newest
from occpipe.ledger import part_keys, read_parquet, run_of, to_parquet
from occpipe.schemas import PUBLISHED, VERSION
from occpipe.storage import Store
from occpipe.types import Status, Verdict
from occpipe.versions import CLEAN, FIRST, Origin, Version

METADATA = "metadata"
MANIFEST = f"{METADATA}/_manifest.json"
SLICE_ROWS = 20_000
MAX_SLICES = 256  # files open at once


def publish(
    store: Store,
    config: Config,
    models: list[dict[str, str | None]],
    root: str,
    version: Version = FIRST,
    origin: Origin = CLEAN,
    *,
    whole: bool = True,
) -> dict[str, Any]:
    """Write `metadata/*.parquet` and `metadata/_manifest.json` from the parts of a version; returns the manifest.

    New files are written before old ones go, and the manifest names those that count. While a version is not `whole`, an
    older one stays published.
    """
    if not whole and (manifest := _of_another_version(store, version)):
        return manifest
    parts = part_keys(store, version.first_run)
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
        first = rows.column("image_id")[0].as_py() if len(rows) else None
        files.append({"file": key.removeprefix(f"{METADATA}/"), "rows": len(rows), "first_id": first, "sha256": sha256})
    manifest = {
        "schema": VERSION,
        "version": version.number,
        **asdict(origin),
        "input": root,
        "images": sum(counts.values()),
        "status": {status: counts[status] for status in Status},
        "reasons": dict(sorted(reasons.items())),
        "removed": dict(sorted(removed.items())),
        "files": files,
        "models": models,
        "versions": {
            "python": platform.python_version(),
            "occpipe": __version__,
            **{n: installed(n) for n in ("ray", "torch")},
        },
        "config": {"digest": config.digest, **config.model_dump(mode="json")},
    }
    store.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    current = {f"{METADATA}/{file['file']}" for file in files}
    for entry in list(store.walk(METADATA)):
        if entry.key.endswith(".parquet") and entry.key not in current:
            store.delete(entry.key)
    return manifest


def _of_another_version(store: Store, version: Version) -> dict[str, Any] | None:
    """The manifest that is published, where it is of another version."""
    try:
        manifest: dict[str, Any] = json.loads(store.read(MANIFEST))
    except FileNotFoundError:
        return None
    return None if manifest["version"] == version.number else manifest


def _slices(store: Store, parts: list[str]) -> Iterator[pa.Table]:
    """The rows of all parts, one for each image, in slices of rising image_id.

    Each part is read once and dealt out by id into files on this machine's disk; then one slice at a time is sorted.
    """
    ids = np.unique(_concat(read_parquet(store, part, ["image_id"]).column(0).to_numpy() for part in parts))
    if not len(ids):
        yield PUBLISHED.empty_table()
        return
    starts = ids[:: max(SLICE_ROWS, -(-len(ids) // MAX_SLICES))]
    schema = PUBLISHED.append(pa.field("run", pa.int64()))
    with tempfile.TemporaryDirectory(prefix="occpipe-") as folder, contextlib.ExitStack() as stack:
        files = [Path(folder, f"{number:05d}.arrow") for number in range(len(starts))]
        writers = [stack.enter_context(pa.ipc.new_stream(file, schema)) for file in files]
        for part in parts:
            rows = read_parquet(store, part).cast(PUBLISHED)
            rows = rows.append_column("run", pa.array(np.full(len(rows), run_of(part), np.int64)))
            target = np.searchsorted(starts, rows.column("image_id").to_numpy(), side="right") - 1
            for number in np.unique(target):
                writers[number].write_table(rows.filter(pa.array(target == number)).cast(schema))
        for writer, file in zip(writers, files, strict=True):
            writer.close()
            with pa.ipc.open_stream(file.read_bytes()) as reader:
                yield _newest(reader.read_all())


def _concat(arrays: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *arrays])


def _newest(rows: pa.Table) -> pa.Table:
    """The rows that count, sorted by image_id."""
    fine = pc.not_equal(rows.column("status"), Status.ERROR).to_numpy()
    counting = newest(rows.column("image_id").to_numpy(), rows.column("run").to_numpy(), fine)
    return rows.take(pa.array(counting)).select(PUBLISHED.names).combine_chunks().cast(PUBLISHED)


def _count(rows: pa.Table, counts: Counter[str], reasons: Counter[str], removed: Counter[str]) -> None:
    counts.update(rows.column("status").to_pylist())
    reasons.update(reason for reason in rows.column("reason").to_pylist() if reason)
    for objects in rows.select(["objects"]).column(0).to_pylist():
        removed.update(item["label"] for item in objects or () if item["verdict"] == Verdict.REMOVE)
