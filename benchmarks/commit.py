"""Time and memory of the commit of a shard, with synthetic rows of 12 MP photos, and whether both stay constant.

A commit is bound by decoding and encoding the rows of one shard, 8,192 rows of some kB. So its time must not depend on
how many shards there are. Each row has 8 things with masks at 1,024 x 768, drawn from outlines of real length. All commits
run in one child process, whose peak memory is printed. At the end one image is added to the corpus, and the files
that change are counted.
Run: python benchmarks/commit.py [--rows 1000000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from occpipe.core.config import Config
from occpipe.core.rows import ObjectRow
from occpipe.core.schemas import MANIFEST, PUBLISHED
from occpipe.core.types import Evidence, Reason, SceneObject, Segment, Verdict
from occpipe.dataset.layout import FIRST
from occpipe.dataset.manifest import image_id, write_shard
from occpipe.dataset.shards import commit_shard, write_part
from occpipe.dataset.sums import write_sums
from occpipe.io.storage import Store, open_store
from occpipe.stages.relate import object_row

SHARD, BLOCK, THINGS = 8_192, 128, 8
HEIGHT, WIDTH = 768, 1_024
SCALE = 4  # to 12 MP


def random_thing(rng: np.random.Generator) -> ObjectRow:
    """A thing with an outline as a segmenter draws it: thresholded noise around a point."""
    noise = cv2.resize(rng.normal(size=(48, 64)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    centre = rng.uniform((0.2 * HEIGHT, 0.2 * WIDTH), (0.8 * HEIGHT, 0.8 * WIDTH))
    near = 1.2 - np.hypot(y - centre[0], x - centre[1]) / rng.uniform(60, 220)
    mask = (near + 0.06 * noise > 0).astype(np.uint8)
    evidence = tuple(Evidence(f"class {number}", float(rng.random())) for number in range(10))
    thing = SceneObject(Segment.from_mask("cat", True, 0.9, mask), 0.4, Verdict.KEEP, Reason.RELATED, evidence)
    return object_row(thing, HEIGHT * SCALE, WIDTH * SCALE)


def block() -> pa.Table:
    """Rows of one block; only their names and ids differ from those of another one."""
    rng = np.random.default_rng(0)
    things = [random_thing(rng) for _ in range(64)]
    row = {"image_id": 0, "uri": "", "status": "unchanged", "size": 3_000_000, "etag": "a", "sha256": "0" * 64}
    row |= {
        "format": "JPEG",
        "width": WIDTH * SCALE,
        "height": HEIGHT * SCALE,
        "mask_width": WIDTH,
        "mask_height": HEIGHT,
    }
    row |= {"removed": 0.0, "config": "0" * 16, "stuff": [{"label": "grass", "confidence": 0.5}] * 6}
    rows = [row | {"objects": [things[n] for n in rng.integers(0, len(things), THINGS)]} for _ in range(BLOCK)]
    return pa.Table.from_pylist([{name: one.get(name) for name in PUBLISHED.names} for one in rows], PUBLISHED)


def make_shard(store: Store, shard: int, rows: int, pattern: pa.Table) -> None:
    """The manifest and the parts of a shard."""
    names = [f"{shard:06d}/{number:05d}.jpg" for number in range(rows)]
    ids = pa.array([image_id(name) for name in names])
    columns = [pa.array(names), pa.array([3_000_000] * rows), pa.array(["a"] * rows)]
    write_shard(store, shard, pa.table(columns, schema=MANIFEST))
    for start in range(0, rows, BLOCK):
        part = pattern.slice(0, min(BLOCK, rows - start))
        part = part.set_column(0, PUBLISHED.field("image_id"), ids[start : start + BLOCK])
        part = part.set_column(1, PUBLISHED.field("uri"), pa.array(names[start : start + BLOCK]))
        write_part(store, FIRST, 1, shard, start, part)


def commit(uri: str, shard: int) -> tuple[float, int]:
    """Seconds of a commit, and the peak memory of this process so far in bytes."""
    started = time.monotonic()
    left = commit_shard(open_store(uri), FIRST, shard)
    if left.missing or left.failed:
        raise SystemExit(f"{left}")
    return time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Make and commit one shard after the other; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", help="Where the data set is made; a temporary folder by default.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="commit-", dir=options.folder) as folder:
        store, pattern = open_store(folder), block()
        counts = [min(SHARD, options.rows - start) for start in range(0, options.rows, SHARD)]
        bytes_a_row = pc.sum(pc.binary_length(_masks(pattern))).as_py() / BLOCK
        seconds, peak = [], 0
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            for shard, rows in enumerate(counts):
                make_shard(store, shard, rows, pattern)
                spent, peak = pool.submit(commit, folder, shard).result()
                seconds.append(spent)
            full = [spent for spent, rows in zip(seconds, counts, strict=True) if rows == SHARD] or seconds
            some = max(1, len(full) // 10)
            print(f"{options.rows:,} rows in {len(counts)} shards, {bytes_a_row / 1000:.1f} kB of masks a row")
            print(
                f"a commit of {min(SHARD, options.rows):,} rows: {np.median(full):.2f} s;"
                f" the first {some}: {np.median(full[:some]):.2f} s, the last {some}: {np.median(full[-some:]):.2f} s"
            )
            print(f"peak memory of the committing process: {peak / 2**20:,.0f} MB")
            started = time.monotonic()
            sums = write_sums(store, Config(), [], folder, listed=options.rows)
            print(f"sums over {sums['images']:,} rows: {time.monotonic() - started:.2f} s")
            before = _files(Path(folder))
            make_shard(store, len(counts), 1, pattern)
            spent, _ = pool.submit(commit, folder, len(counts)).result()
            changed = [name for name, state in _files(Path(folder)).items() if before.get(name) != state]
            print(f"one image more: {spent:.3f} s; files below metadata/ that changed: {', '.join(changed)}")


def _masks(rows: pa.Table) -> pa.Array:
    return pc.struct_field(pc.list_flatten(rows.column("objects")), "mask")


def _files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "metadata").iterdir()}


if __name__ == "__main__":
    main()
