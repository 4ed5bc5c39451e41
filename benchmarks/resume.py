"""Time and memory until a run over millions of done images begins with the first new one.

A shard with a file is done. So a resume is bound by the listing, by the comparison of the listing with the manifest, and
by the start of Ray. No row of a done image is read. The output is synthetic: shards of the manifest, and published files
with few columns. So is the corpus, a file system that generates its names in the listing.
Then a few images are added and `occpipe clean` runs over them. Afterwards that is undone, and it runs again with
`--no-list`.
Run: python benchmarks/resume.py [--rows 10000000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from occpipe.core.config_file import load_config
from occpipe.core.schemas import MANIFEST, PUBLISHED
from occpipe.dataset.layout import FIRST, METADATA
from occpipe.dataset.manifest import image_id, load_index, save_index, write_shard
from occpipe.dataset.shards import commit_shard, list_shards, write_part
from occpipe.dataset.sums import write_sums
from occpipe.dataset.versions import open_version
from occpipe.io.storage import Store, open_store
from occpipe.models.loading import identities

ROOT = Path(__file__).parents[1]
NAMES = 10_000  # images of a folder
SHARD = 8_192
MORE = 5


def make_output(store: Store, rows: int, size: int) -> None:
    """Shards of the manifest with their published files, as if all images had been done."""
    names = (f"d{number // NAMES:05d}/{number % NAMES:05d}.jpg" for number in range(rows))
    for shard, start in enumerate(range(0, rows, SHARD)):
        uris = [next(names) for _ in range(min(SHARD, rows - start))]
        ids = [image_id(uri) for uri in uris]
        count = len(uris)
        columns = [pa.array(uris), pa.array([size] * count), pa.array(["a"] * count)]
        images = pa.table(columns, schema=MANIFEST)
        write_shard(store, shard, images)
        values: dict[str, Any] = {"status": ["unchanged"] * count, "config": ["0" * 16] * count, "image_id": ids}
        values |= {name: images.column(name) for name in MANIFEST.names}
        arrays = [
            pa.chunked_array([pa.array(value, field.type)]) if isinstance(value, list) else value
            for field in PUBLISHED
            for value in [values.get(field.name, pa.chunked_array([pa.nulls(count, field.type)]))]
        ]
        write_part(store, FIRST, 1, shard, 0, pa.table(arrays, schema=PUBLISHED))
        commit_shard(store, FIRST, shard)
        if not shard % 100:
            print(f"  {start + count:,} rows made", flush=True)
    save_index(store, load_index(store))


def watch(run: subprocess.Popen[bytes], peak: list[int]) -> None:
    """The most memory that the driver has, without what it shares with the object store."""
    process = psutil.Process(run.pid)
    while run.poll() is None:
        try:
            memory = process.memory_info()
            peak[0] = max(peak[0], memory.rss - memory.shared)
        except psutil.Error:
            return
        time.sleep(0.2)


def measure(corpus: str, output: Path, *options: str) -> dict[str, float]:
    """Run `occpipe clean` and say when its listing ended, when Ray was there, and when the first image was loaded."""
    with tempfile.TemporaryDirectory(prefix="stamps-") as stamps:
        path = os.pathsep.join((str(ROOT / "benchmarks" / "hooks"), str(ROOT)))
        environment = {**os.environ, "PYTHONPATH": path, "OCCPIPE_MADE": "1", "OCCPIPE_STAMPS": stamps}
        listing = output / "state" / "listing.parquet"
        before, peak, started = listing.stat().st_mtime, [0], time.time()
        command = [sys.executable, "-m", "occpipe", "clean", corpus, str(output), *options]
        with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as run:
            threading.Thread(target=watch, args=(run, peak), daemon=True).start()
            run.wait()
        moments = [json.loads(line) for file in Path(stamps).iterdir() for line in file.read_text().splitlines()]
        loads = [one["begun"] for one in moments if one["what"] == "first Load"]
        ray = [one["ended"] for one in moments if one["what"] == "ray.init"]
        if run.returncode or not loads:
            raise SystemExit(f"exit code {run.returncode}, {len(loads)} loads")
        now = listing.stat().st_mtime
        listed = now if now != before else started
        return {
            "listed": listed - started,
            "ray": min(ray) - started,
            "first": min(loads) - started,
            "end": time.time() - started,
            "driver_mb": peak[0] / 2**20,
        }


def main() -> None:
    """Make the output, add images, measure both runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", help="Where the output is made; a temporary folder by default.")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from benchmarks.hooks.synthetic import SyntheticFileSystem

    rows = options.rows // NAMES * NAMES
    corpus = f"synthetic://{rows // NAMES}/{NAMES}/{MORE}"
    with tempfile.TemporaryDirectory(prefix="resume-", dir=options.folder) as folder:
        output, config = Path(folder), load_config()
        store, models = open_store(folder), identities(config)
        root = open_store(corpus).uri
        open_version(store, config, models, root)
        make_output(store, rows, len(SyntheticFileSystem()._data))
        write_sums(store, config, models, root, listed=rows)
        print(
            f"{rows:,} rows are done, in {len(list_shards(store, METADATA)):,} shards; {MORE} images are new",
            flush=True,
        )
        seen = measure(corpus, output)
        print(
            f"listed after {seen['listed']:.1f} s; the first new image begins {seen['first'] - seen['listed']:.1f} s"
            f" after that; the driver has {seen['driver_mb']:.0f} MB; all in {seen['end']:.1f} s"
        )
        last = max(list_shards(store, METADATA))
        store.delete(FIRST.rows(last))
        seen = measure(corpus, output, "--no-list")
        print(
            f"with --no-list the first image begins {seen['first'] - seen['ray']:.1f} s after Ray is there"
            f" ({seen['first']:.1f} s after the start); the driver has {seen['driver_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
