"""How long a run over a large corpus takes until it knows what is left to do, and in how much memory.

Bound by reading some 20 bytes a row of index, plus the parts that a crash left out of it, plus a sort; then by a hash and a
look-up for each key of the listing. Ledger and listing are made up: parts of 64 rows as the sink writes them (those that
the index knows are not read, so here they are empty), an index as the driver writes it, the parts of the last minutes
unknown to it, and a listing of the same keys, of which every hundredth has changed since.
Run: python benchmarks/resume.py [--rows 1000000] [--unindexed 100] [--folder DIR]
"""

from __future__ import annotations

import argparse
import itertools
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from occpipe.done import IndexWriter, etag_hash, load_done
from occpipe.ledger import PARTS, next_run, to_parquet
from occpipe.schemas import PUBLISHED
from occpipe.stages.discover import discover, image_id
from occpipe.storage import Entry, Store, open_store

PART_ROWS = 64
PARTS_AT_ONCE = 128
CHANGED = 100  # every so many-th image


def listing(rows: int, *, changed: bool) -> Iterator[Entry]:
    """The corpus as a store lists it, `changed` or as it was at the first run."""
    for number in range(rows):
        again = changed and number % CHANGED == 0
        yield Entry(f"photos/{number // 1000:06d}/{number:09d}.jpg", 100_000, f"{number:x}{'-2' if again else ''}")


def make_ledger(store: Store, rows: int, unindexed: int) -> None:
    """`rows` rows of the first run in parts; the last `unindexed` parts stand in no index."""
    index, entries = IndexWriter(store, 1), listing(rows, changed=False)
    known = max(0, rows // PART_ROWS - unindexed)
    for first in range(0, known, PARTS_AT_ONCE):
        parts = [part_name(number) for number in range(first, min(first + PARTS_AT_ONCE, known))]
        some = list(itertools.islice(entries, PART_ROWS * len(parts)))
        for part in parts:
            store.write(f"{PARTS}/{part}", b"")
        of_row = pa.array(np.arange(len(some), dtype=np.int32) // PART_ROWS)
        columns = {
            "image_id": pa.array([image_id(entry.key) for entry in some]),
            "etag": pa.array([etag_hash(entry.etag) for entry in some]),
            "fine": pa.array(np.ones(len(some), bool)),
            "part": pa.DictionaryArray.from_arrays(of_row, parts),
        }
        index.add(pa.table(columns))
    index.flush()
    for number in range(known, -(-rows // PART_ROWS)):
        table = published(list(itertools.islice(entries, PART_ROWS)))
        store.write(f"{PARTS}/{part_name(number)}", to_parquet(table))


def part_name(number: int) -> str:
    """The name of a part of the first run."""
    return f"000001-{number:024x}.parquet"


def published(entries: list[Entry]) -> pa.Table:
    """Rows as the sink writes them."""
    stuff = [{"label": "sky-other", "confidence": 0.9}, {"label": "grass", "confidence": 0.5}]
    columns = {name: pa.nulls(len(entries), PUBLISHED.field(name).type) for name in PUBLISHED.names} | {
        "image_id": pa.array([image_id(entry.key) for entry in entries]),
        "uri": pa.array([entry.key for entry in entries]),
        "status": pa.array(["unchanged"] * len(entries)),
        "etag": pa.array([entry.etag for entry in entries]),
        "config": pa.array(["c"] * len(entries)),
        "stuff": pa.array([stuff] * len(entries), PUBLISHED.field("stuff").type),
    }
    return pa.table(columns, schema=PUBLISHED)


def resume(uri: str, rows: int) -> None:
    """What a run does before its first image, timed: the ledger is read, the corpus listed and held against it."""
    store = open_store(uri)
    start = time.perf_counter()
    run, done = next_run(store), load_done(store, "errors")
    print(f"run {run}, {len(done.ids)} images done: {time.perf_counter() - start:.1f} s, peak {peak_mb():.0f} MB")
    start = time.perf_counter()
    found = discover("/nowhere", listing(rows, changed=True), store, done, run)
    seconds = time.perf_counter() - start
    print(f"{found.seen} keys listed, {found.pending} to do: {seconds:.1f} s, peak {peak_mb():.0f} MB")


def peak_mb() -> float:
    """The most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Make the ledger, and resume from it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--unindexed", type=int, default=100, help="Parts that the index does not know.")
    parser.add_argument("--folder", type=Path, help="Where the ledger is made; a temporary folder by default.")
    parser.add_argument("--resume", metavar="URI", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.resume:
        resume(args.resume, args.rows)
        return
    folder = args.folder or Path(tempfile.mkdtemp())
    try:
        make_ledger(open_store(str(folder)), args.rows, args.unindexed)
        subprocess.run([sys.executable, __file__, "--resume", str(folder), "--rows", str(args.rows)], check=True)
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
