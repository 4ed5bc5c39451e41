"""The overhead of a run beside its stages, measured from outside; a part of `benchmarks/stages.py`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.corpus import is_written
from benchmarks.processes import Processes
from occpipe.core.config import Config
from occpipe.core.schemas import MANIFEST, PUBLISHED
from occpipe.dataset.layout import METADATA, Layout, manifest_key
from occpipe.dataset.parquet import to_parquet
from occpipe.dataset.shards import commit_shard, write_part
from occpipe.io.storage import open_store
from occpipe.pipeline.planning.rates import SHARD_IMAGES, Overhead, Rates
from occpipe.pipeline.steps import POOLS, STAGES

ROOT = Path(__file__).parents[1]
PART_ROWS = 64


@dataclass(frozen=True)
class Moment:
    """A run, seen from outside: seconds since its start, rows written, CPU seconds of all its processes."""

    seconds: float
    rows: int
    cpu: float


def watch(config: str, overrides: list[str], photos: Path, output: Path) -> Iterator[Moment]:
    """Run `occpipe clean`, and yield a moment whenever rows come out, and one for its end."""
    command = [sys.executable, "-m", "occpipe", "clean", str(photos), str(output), "--config", config]
    command += [part for setting in overrides for part in ("--set", setting)]
    begun = time.monotonic()
    run = subprocess.Popen(command, cwd=ROOT)
    processes, written = Processes(run.pid), dict[Path, int]()
    while run.poll() is None:
        if new := _parts(output, written):
            written |= new
            processes.look()
            yield Moment(time.monotonic() - begun, sum(written.values()), sum(processes.cpu_by_kind().values()))
        time.sleep(0.1)
    if run.returncode:
        raise SystemExit(run.returncode)
    rows = sum(pq.read_metadata(path).num_rows for path in (output / METADATA).glob("*.parquet"))
    yield Moment(time.monotonic() - begun, rows, sum(processes.cpu_by_kind().values()))


def _parts(output: Path, earlier: dict[Path, int]) -> dict[Path, int]:
    """Rows of the parts that are new; one that is committed before it is read here is gone, and is not seen."""
    counts = {}
    for path in (output / Layout().all_parts).rglob("*.parquet"):
        if path not in earlier and is_written(path):
            try:
                counts[path] = pq.read_metadata(path).num_rows
            except FileNotFoundError:
                continue
    return counts


def overhead(moments: list[Moment], alone: Rates, driver_s: float, commit_s: float) -> Overhead:
    """What a watched run has beside the seconds that its stages take alone.

    From the first block to the last but one all stages have work; while the last one is in work, the first ones idle.
    """
    *written, end = moments
    if len(written) < 3:
        raise SystemExit("the run came out in too few blocks: give --blocks 4 or more")
    first, last = written[0], written[-2]
    images = last.rows - first.rows
    cpu = max(0.0, (last.cpu - first.cpu) / images - alone.cpu_s)
    per_image = (last.seconds - first.seconds) / images
    cores = alone.machine.cpus * alone.machine.free
    shared = (alone.cpu_s + cpu) / cores  # what competing for cores explains is no cost of a worker
    worker = max(0.0, per_image - max(shared, *(alone.of(name).worker_s for name in POOLS)))
    line = sum(alone.of(name).worker_s for name in STAGES) + len(POOLS) * worker
    print(f"the run: {per_image:.4f} s an image while all stages work, of which the cores explain {shared:.4f}")
    for moment in moments:
        print(f"  {moment.seconds:6.1f} s {moment.rows:5} rows {moment.cpu:7.1f} CPU s")
    return Overhead(
        start_s=max(0.0, first.seconds - first.rows * line),
        end_s=end.seconds - written[-1].seconds,
        cpu_s=cpu,
        worker_s=worker,
        driver_s=driver_s,
        commit_s=commit_s,
    )


def commit_seconds(written: pa.Table) -> float:
    """CPU seconds of the commit of a full shard, of rows like these, as `write` leaves them."""
    rows = written.select(PUBLISHED.names).cast(PUBLISHED)
    rows = pa.concat_tables([rows] * -(-SHARD_IMAGES // len(rows))).slice(0, SHARD_IMAGES)
    uris = pa.array([f"{number:06d}.jpg" for number in range(SHARD_IMAGES)])
    rows = rows.set_column(rows.schema.get_field_index("uri"), PUBLISHED.field("uri"), uris)
    with tempfile.TemporaryDirectory(prefix="commit-") as folder:
        store, layout = open_store(folder), Layout()
        store.write(manifest_key(0), to_parquet(rows.select(MANIFEST.names)))
        for first in range(0, SHARD_IMAGES, PART_ROWS):
            write_part(store, layout, 1, 0, first, rows.slice(first, PART_ROWS))
        begun = time.process_time()
        commit_shard(store, layout, 0)
        return time.process_time() - begun


def driver_seconds(config: Config) -> float:
    """CPU seconds of the driver for a block on its way through all stages: see `benchmarks/driver.py`."""
    from benchmarks.driver import block_seconds  # whose import takes Ray's seconds

    return max(0.0, block_seconds(config, 16_384, 128)[0])
