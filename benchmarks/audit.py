"""Time and memory of `occpipe audit` over a large output: the whole command, measured from outside.

Bound by decoding the columns that it reads and by grouping, on all cores. The rows are synthetic: 3 things an image with
masks of some 220 characters and 6 lines of evidence each, 5 stuff classes. One image in 12 loses a thing. Shards of 8,192
rows are repeated by hard links, so that the disk holds 0.5 GB.
Run: python benchmarks/audit.py [--rows 10000000] [--distinct 64] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from occpipe.core.classes import coco_stuff
from occpipe.core.config import Config
from occpipe.core.resources import cores
from occpipe.core.schemas import BOX, EVIDENCE, OBJECT, PUBLISHED, STUFF
from occpipe.dataset.layout import SUMS, rows_key
from occpipe.dataset.parquet import ROW_GROUP, to_parquet

SHARD_ROWS = 8_192
CUT = 0.117
THINGS = np.array([c.name for c in coco_stuff() if c.is_thing])
CLASSES = np.array([c.name for c in coco_stuff() if not c.is_thing])


def make_rows(rng: np.random.Generator, rows: int) -> pa.Table:
    """Rows as `clean` publishes them, sorted by image_id."""
    ids = np.sort(rng.integers(1, np.iinfo(np.int64).max, rows))
    status = rng.choice(["unchanged", "cleaned", "error", "skipped"], rows, p=[0.897, 0.083, 0.01, 0.01])
    seen = np.isin(status, ["unchanged", "cleaned"])
    counts = np.where(seen, rng.poisson(3, rows), 0)
    objects = make_things(rng, int(counts.sum()), np.repeat(status == "cleaned", counts))
    stuff = np.where(seen, rng.poisson(5, rows), 0)
    columns = {name: pa.nulls(rows, PUBLISHED.field(name).type) for name in PUBLISHED.names}
    reasons = pa.array(np.where(status == "error", "truncated", "too_small"), mask=seen)
    stages, kinds = (pa.array(np.full(rows, value), mask=seen) for value in ("segment", "ImageError"))
    columns |= {
        "image_id": pa.array(ids),
        "uri": pa.array([f"photos/{key >> 52:03x}/{key:016x}.jpg" for key in ids.tolist()]),
        "status": pa.array(status),
        "reason": reasons,
        "error": pa.StructArray.from_arrays([stages, kinds, kinds], ["stage", "type", "message"]),
        "size": pa.array(rng.integers(50_000, 5_000_000, rows)),
        "etag": pa.array([f"{key:032x}" for key in ids.tolist()]),
        "width": pa.array(np.full(rows, 640, np.int32), mask=~seen),
        "height": pa.array(np.full(rows, 480, np.int32), mask=~seen),
        "mask_width": pa.array(np.full(rows, 640, np.int32), mask=~seen),
        "mask_height": pa.array(np.full(rows, 480, np.int32), mask=~seen),
        "objects": pa.ListArray.from_arrays(_offsets(counts), objects, mask=pa.array(~seen)),
        "stuff": pa.ListArray.from_arrays(_offsets(stuff), _pairs(rng, CLASSES, int(stuff.sum()), STUFF)),
        "removed": pa.array(np.where(status == "cleaned", rng.beta(2, 30, rows), 0).astype(np.float32), mask=~seen),
        "config": pa.array(["0" * 16] * rows),
    }
    return pa.table([columns[name].cast(PUBLISHED.field(name).type) for name in PUBLISHED.names], schema=PUBLISHED)


def make_things(rng: np.random.Generator, count: int, cleaned: NDArray[np.bool_]) -> pa.StructArray:
    """Things, of which every other one goes from a cleaned image."""
    goes = cleaned & (rng.random(count) < 0.5)
    relation = np.where(goes, rng.random(count) * CUT, CUT + rng.beta(5, 1, count) * (1 - CUT)).astype(np.float32)
    lengths = np.clip(rng.lognormal(5.4, 0.6, count), 20, 4000).astype(np.int64)
    letters = rng.integers(48, 112, int(lengths.sum()), dtype=np.uint8)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    masks = pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(letters))
    sides = [pa.array(rng.integers(0, 240, count, dtype=np.int32)) for _ in range(4)]
    evidence = _pairs(rng, CLASSES, 6 * count, EVIDENCE)
    values: dict[str, Any] = {
        "label": pa.array(_labels(rng, THINGS, count)),
        "score": pa.array(rng.random(count, np.float32)),
        "area": pa.array(rng.integers(600, 60_000, count)),
        "bbox": pa.StructArray.from_arrays(sides, fields=list(BOX)),
        "mask": masks,
        "relation": pa.array(relation),
        "verdict": pa.array(np.where(goes, "remove", "keep")),
        "reason": pa.array(np.where(goes, "unrelated", rng.choice(["related", "too_small", "kept_by_policy"], count))),
        "evidence": pa.ListArray.from_arrays(_offsets(np.full(count, 6)), evidence),
    }
    return pa.StructArray.from_arrays([values[field.name] for field in OBJECT], fields=list(OBJECT))


def _pairs(rng: np.random.Generator, names: NDArray[np.str_], count: int, kind: pa.StructType) -> pa.StructArray:
    columns = [pa.array(_labels(rng, names, count)), pa.array(rng.random(count, np.float32))]
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def _labels(rng: np.random.Generator, names: NDArray[np.str_], count: int) -> NDArray[np.str_]:
    """A few classes often, most seldom."""
    return names[np.minimum(rng.geometric(0.06, count) - 1, len(names) - 1)]


def _offsets(counts: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))


def make_output(folder: Path, rows: int, distinct: int) -> None:
    """A published output of whole shards; files beyond the first `distinct` are links to those."""
    rng = np.random.default_rng(0)
    (folder / "metadata").mkdir(parents=True)
    for shard in range(-(-rows // SHARD_ROWS)):
        path = folder / rows_key(shard)
        if shard < distinct:
            path.write_bytes(to_parquet(make_rows(rng, SHARD_ROWS), ROW_GROUP))
        else:
            os.link(folder / rows_key(shard % distinct), path)
    config = Config()
    settings = {"digest": config.digest, **config.model_dump(mode="json")}
    (folder / SUMS).write_text(json.dumps({"config": settings}))


def main() -> None:
    """Make the output, and audit it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--distinct", type=int, default=64, help="Shards that are made; the others are links.")
    parser.add_argument("--folder", type=Path, help="Made there, and left there; by default made and deleted.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "metadata").exists():
            make_output(folder, args.rows, args.distinct)
        bytes_a_row = sum(path.stat().st_size for path in folder.glob("metadata/*.parquet")) / args.rows
        start = time.perf_counter()
        command = [sys.executable, "-m", "occpipe", "audit", str(folder), "--json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    result = json.loads(done.stdout)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{result['images']:,} images, {result['things']:,} things, {bytes_a_row:.0f} bytes a row, {cores()} cores")
    print(f"{seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of CPU, peak {used.ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
