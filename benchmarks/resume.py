"""How long a run over a large corpus takes until it knows what is left to do, and in how much memory.

Bound by reading some 20 bytes a row of index, plus the parts that a crash left out of it, plus a sort. The ledger is made
up: parts of 64 rows as the sink writes them, an index as the driver writes it, the parts of the last minutes unknown to it.
Run: python benchmarks/resume.py [--rows 1000000] [--unindexed 100] [--folder DIR]
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from occpipe.done import IndexWriter, etag_hash, index_rows, load_done
from occpipe.ledger import PARTS, next_run, part_keys, to_parquet
from occpipe.schemas import PUBLISHED
from occpipe.storage import Store, open_store

PART_ROWS = 64


def make_ledger(store: Store, rows: int, unindexed: int) -> None:
    """`rows` rows of the first run in parts; the last `unindexed` parts stand in no index."""
    rng = np.random.default_rng(0)
    ids = rng.choice(np.iinfo(np.int64).max, rows, replace=False)
    index = IndexWriter(store, 1)
    stuff = [[{"label": "sky-other", "confidence": 0.9}, {"label": "grass", "confidence": 0.5}]] * PART_ROWS
    for number in range(0, rows, PART_ROWS):
        some = ids[number : number + PART_ROWS]
        columns = {name: pa.nulls(len(some), PUBLISHED.field(name).type) for name in PUBLISHED.names} | {
            "image_id": pa.array(some),
            "uri": pa.array([f"photos/{key}.jpg" for key in some]),
            "status": pa.array(["error" if key % 50 == 0 else "unchanged" for key in some]),
            "etag": pa.array([f"{key:x}" for key in some]),
            "config": pa.array(["c"] * len(some)),
            "stuff": pa.array(stuff[: len(some)], PUBLISHED.field("stuff").type),
        }
        table = pa.table(columns, schema=PUBLISHED)
        part = f"{PARTS}/000001-{number:024x}.parquet"
        store.write(part, to_parquet(table))
        if number < rows - unindexed * PART_ROWS:
            index.add(index_rows(table, part))
    index.flush()


def resume(uri: str) -> None:
    """What a run does before its first image, timed; and a part of the corpus held against it."""
    store = open_store(uri)
    start = time.perf_counter()
    run, done = next_run(store), load_done(store, "errors")
    loaded = time.perf_counter()
    etags = np.array([etag_hash(f"{key:x}") for key in done.ids[:8192]], np.int64)
    asked = time.perf_counter()
    covered = done.covers(done.ids[:8192], etags)
    seconds = time.perf_counter() - asked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parts = len(part_keys(store))
    print(f"run {run}, {parts} parts, {len(done.ids)} images done: {loaded - start:.2f} s, peak {peak:.0f} MB")
    print(f"8,192 images held against them: {1000 * seconds:.1f} ms, {int(covered.sum())} done")


def main() -> None:
    """Make the ledger, and resume from it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--unindexed", type=int, default=100, help="Parts that the index does not know.")
    parser.add_argument("--folder", type=Path, help="Where the ledger is made; a temporary folder by default.")
    parser.add_argument("--resume", metavar="URI", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.resume:
        resume(args.resume)
        return
    folder = args.folder or Path(tempfile.mkdtemp())
    try:
        make_ledger(open_store(str(folder)), args.rows, args.unindexed)
        subprocess.run([sys.executable, __file__, "--resume", str(folder)], check=True)
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
