"""Time and memory of a report over a large output, and its size.

Bound by the audit and by decoding eight narrow columns of each row once more, then by the thumbnails. The rows are
synthetic: two things in each, one image in fifty cleaned, one in a hundred failed, masks of 300 bytes; all photos
are one photo.
Run: python benchmarks/report.py [--rows 1000000] [--most 80]
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image as Pil

from occpipe.analysis.pages.report import write_report
from occpipe.core.config import Config
from occpipe.core.masks import Rle
from occpipe.core.schemas import PUBLISHED
from occpipe.dataset.layout import SUMS, rows_key
from occpipe.dataset.parquet import ROW_GROUP, to_parquet
from occpipe.io.storage import open_store

SHARD_ROWS = 8_192
SIDE = 480


def make_output(folder: Path, rows: int) -> None:
    """A published output of `rows` rows in files as `commit` writes them."""
    store = open_store(str(folder))
    rng = np.random.default_rng(0)
    photo = io.BytesIO()
    smooth = Pil.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((SIDE * 4 // 3, SIDE))
    smooth.save(photo, format="JPEG")
    store.write("photos/photo.jpg", photo.getvalue())
    mask = np.zeros((SIDE, SIDE * 4 // 3), np.uint8)
    for y in range(0, 200, 2):
        mask[y : y + 2, 100 : 300 + y % 7] = 1
    counts = Rle.encode(mask).counts.decode()
    table = pa.Table.from_pylist([_row(n, counts) for n in range(SHARD_ROWS)], PUBLISHED)
    for shard, start in enumerate(range(0, rows, SHARD_ROWS)):
        ids = pa.array(range(start, start + SHARD_ROWS))
        some = table.set_column(0, PUBLISHED.field("image_id"), ids).slice(0, rows - start)
        store.write(rows_key(shard), to_parquet(some, ROW_GROUP))
    config = Config()
    manifest = {"input": str(folder / "photos"), "images": rows, "digest": "made up"}
    settings = {"digest": config.digest, **config.model_dump(mode="json")}
    store.write(SUMS, json.dumps(manifest | {"config": settings}).encode())


def _row(number: int, counts: str) -> dict[str, object]:
    gone, failed = number % 50 == 0, number % 100 == 1
    box = {"x": 100, "y": 0, "width": 200, "height": 200}
    cat = {"label": f"class {number % 80}", "relation": number % 997 / 997, "verdict": "keep", "reason": "related"}
    if gone:
        cat |= {"relation": number % 997 / 9970, "verdict": "remove", "reason": "unrelated"}
    things = [
        thing | {"score": 0.9, "area": 40_000, "bbox": box, "mask": counts, "evidence": []} for thing in (cat, cat)
    ]
    row: dict[str, object] = dict.fromkeys(PUBLISHED.names)
    row |= {
        "image_id": number,
        "uri": "photo.jpg",
        "config": "c",
        "status": "unchanged",
        "removed": 0.0,
        "objects": things,
    }
    row |= {"width": SIDE * 4 // 3, "height": SIDE, "mask_width": SIDE * 4 // 3, "mask_height": SIDE}
    row |= {"stuff": [{"label": "sky-other", "confidence": 0.9}]}
    if gone:
        row |= {"status": "cleaned", "mask": counts, "removed": 0.1, "output": "photos/photo.jpg"}
    if failed:
        row |= {
            "status": "error",
            "reason": "truncated",
            "objects": None,
            "removed": None,
            "width": None,
            "height": None,
        }
    return row


def report(folder: Path, most: int) -> None:
    """Write the report, timed."""
    page = folder / "report.html"
    start = time.perf_counter()
    shown = write_report(str(folder), None, page, most)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{shown} images shown: {seconds:.1f} s, peak {peak:.0f} MB, page {page.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Make the output, and its report in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--most", type=int, default=80)
    parser.add_argument("--report", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.report:
        report(args.report, args.most)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_output(Path(folder), args.rows)
        print(f"{args.rows} rows")
        subprocess.run([sys.executable, __file__, "--most", str(args.most), "--report", folder], check=True)


if __name__ == "__main__":
    main()
