"""What one driver can keep up with: the product's own Ray Data chain over thin rows, with stages that do nothing.

Bound by the driver's one Python process, which schedules a task for each block and stage: images/s = rows of a block / CPU
seconds of a block. On few cores the workers take longer than that, because an empty task costs them some milliseconds; so
the rate of the whole run is printed beside that of the driver alone. What a block costs is the difference of two runs, so
that the start does not count. The journal is the real one; nothing is written, and nothing is listed.
Run: python benchmarks/driver.py [--images 65536] [--block 128] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from ray.data import DataContext

from occpipe.core.config import Config
from occpipe.core.config_file import load_config
from occpipe.core.schemas import PIPELINE
from occpipe.io.storage import Store
from occpipe.pipeline.planning.rates import SHARD_IMAGES
from occpipe.pipeline.ray.connection import configure_data, ray_session
from occpipe.pipeline.ray.crash_guard import Guard, Timed
from occpipe.pipeline.ray.executor import ReadUnit, in_pool, in_read_tasks, in_tasks
from occpipe.pipeline.ray.journal import JournalHandle
from occpipe.pipeline.steps import POOLS, STAGES
from occpipe.pipeline.units import MAX_UNIT_ROWS, Unit

MB = 1 << 20
_COLUMNS = ("uri", "size", "shard", "row", "status", "reason", "error", "segments", "stuff", "mask")
_SHORT = 8  # of the two runs, the short one has so many times fewer images


@dataclass(frozen=True)
class Run:
    """Seconds, CPU seconds of the driver, blocks, and the memory of the driver at its end in bytes."""

    seconds: float
    cpu_s: float
    blocks: int
    memory: int


def thin_rows(_: Store | None, unit: Unit) -> pa.Table:
    """The rows of a unit, without pixels; there is no store that they come from."""
    count = len(unit.rows)
    known = {
        "uri": pa.array([f"photos/{unit.shard:06d}/{row:06d}.jpg" for row in unit.rows]),
        "shard": pa.array([unit.shard] * count, pa.int32()),
        "row": pa.array(unit.rows, pa.int32()),
    }
    return pa.table({name: known.get(name, pa.nulls(count, PIPELINE[name])) for name in _COLUMNS})


def pass_on(batch: pa.Table) -> pa.Table:
    """A stage that does nothing."""
    return batch


class GuardedNothing(Guard):
    """The same as a pool."""

    def __init__(self, name: str, journal: JournalHandle) -> None:
        super().__init__(name, pass_on, journal)


def units(images: int) -> list[Unit]:
    """Units of full size, in shards of full size."""
    of_shard = SHARD_IMAGES // MAX_UNIT_ROWS
    return [
        Unit(number // of_shard, np.arange(MAX_UNIT_ROWS, dtype=np.int32) + number % of_shard * MAX_UNIT_ROWS)
        for number in range(-(-images // MAX_UNIT_ROWS))
    ]


def run(config: Config, images: int, block_rows: int) -> Run:
    """One run, on the Ray that is there."""
    configure_data(config.ray)
    one_block = thin_rows(None, Unit(0, np.arange(block_rows, dtype=np.int32)))
    DataContext.get_current().target_max_block_size = one_block.nbytes
    journal = JournalHandle()
    reads = [ReadUnit("/nowhere", thin_rows, unit, pass_on, journal) for unit in units(images)]
    out = in_read_tasks(reads, config.placement.load)
    for name in STAGES[1:]:
        at = getattr(config.placement, name)
        is_pool = name in POOLS
        out = (
            in_pool(out, GuardedNothing, (name, journal), at)
            if is_pool
            else in_tasks(out, Timed(name, pass_on, journal), at)
        )
    begun, cpu, blocks, rows = time.monotonic(), time.process_time(), 0, 0
    for batch in out.iter_batches(batch_format="pyarrow", batch_size=None):
        blocks, rows = blocks + 1, rows + len(batch)
    assert rows >= images, f"{rows} rows of {images} came out"
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    return Run(seconds, cpu, blocks, psutil.Process().memory_info().rss)


def block_seconds(config: Config, images: int, block_rows: int) -> tuple[float, Run, Run]:
    """CPU seconds of the driver for a block, and the two runs that it is the difference of."""
    with ray_session(config.ray):
        short, long = (run(config, count, block_rows) for count in (images // _SHORT, images))
    return (long.cpu_s - short.cpu_s) / (long.blocks - short.blocks), short, long


def main() -> None:
    """Run twice, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=65_536)
    parser.add_argument("--block", type=int, default=128, help="Rows of a block: those of the config gpu by default.")
    parser.add_argument("--config", default="local")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cost, short, long = block_seconds(load_config(options.config, options.overrides), options.images, options.block)
    images, seconds = options.images - options.images // _SHORT, long.seconds - short.seconds
    rows = images / (long.blocks - short.blocks)
    result = {
        "images_per_s_of_the_driver": round(rows / cost, 1),
        "images_per_s_of_this_machine": round(images / seconds, 1),
        "rows_of_a_block": round(rows, 1),
        "driver_cpu_ms_a_block": round(1000 * cost, 2),
        "driver_mb_a_million_images": round((long.memory - short.memory) / MB / images * 1e6),
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
