"""The cost of each stage alone, and the overhead of the pipeline: the file of rates that `occpipe plan` reads.

Each stage runs here as in the pipeline (its class, blocks, threads and niceness) but outside Ray, over a sample of photos;
one `occpipe clean` over the same photos, in `--blocks` blocks, is watched from outside. What the whole process tree burns
beside the stages while blocks come out one after another is the pipeline's; what precedes the first block and follows the
last one is the start and the end. Runs that do nothing say what a block costs the driver, and a shard of copied rows what a
commit costs. Processes that only spin say what share of the cores other work leaves: the rates hold for a machine that is
as busy. The time of a page of the listing is not measured: it is the 50 ms of a store, unless `--page` says otherwise.
Run: python benchmarks/stages.py [PHOTOS] [--config local] [--set KEY=VALUE] [--count 60] [--blocks 4] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from benchmarks.machine import NICENESS, cpu_model, free_share, gpu_name
from benchmarks.overheads import commit_seconds, driver_seconds, overhead, watch
from occpipe.core.config import Config
from occpipe.core.config_file import load_config
from occpipe.core.resources import cores
from occpipe.dataset.manifest import manifest_table, with_ids
from occpipe.io.images import Limits, decode_with_header
from occpipe.io.storage import open_store
from occpipe.models.loading import load_inpainter, load_segmenter, pick_device, set_threads
from occpipe.pipeline.planning.rates import Machine, Overhead, Rates, Seconds
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.load import Load
from occpipe.stages.relate import Relate
from occpipe.stages.segment import SegmentStage
from occpipe.stages.write import Write

ROOT = Path(__file__).parents[1]
MASKS = 8  # photos with a removal that inpaint is measured on; with fewer, bolder cuts give more
CUTS = (0.24, 0.5, 1.0)
WARM_ROWS = 8
Stage = Callable[[pa.Table], pa.Table]


class Clock:
    """Calls a model and adds up the seconds that a GPU works on it, by events in its stream."""

    def __init__(self, call: Callable[..., Any], device: str) -> None:
        self._call, self._on_gpu, self.seconds = call, device != "cpu", 0.0

    def __call__(self, *arguments: Any) -> Any:
        if not self._on_gpu:
            return self._call(*arguments)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's
        first.record()
        result = self._call(*arguments)
        last.record()
        last.synchronize()
        self.seconds += first.elapsed_time(last) / 1000
        return result


def measured(stage: Stage, table: pa.Table, rows: int, clock: Clock | None = None) -> tuple[pa.Table, Seconds]:
    """The table as a stage leaves it, and its seconds an image, in blocks of so many rows; a first batch warms it up."""
    if not len(table):
        return stage(table), Seconds(worker_s=0, cpu_s=0)
    stage(table.slice(0, WARM_ROWS))
    gpu = clock.seconds if clock else 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    done = [stage(table.slice(start, rows)) for start in range(0, len(table), rows)]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    gpu = clock.seconds - gpu if clock else 0.0
    count = len(table)
    return pa.concat_tables(done), Seconds(worker_s=wall / count, cpu_s=cpu / count, gpu_s=gpu / count)


def manifest_of(photos: list[Path]) -> pa.Table:
    """Rows as `load` takes them, of photos in one folder."""
    names = {photo.name for photo in photos}
    entries = [entry for entry in open_store(str(photos[0].parent)).walk() if entry.key in names]
    table = with_ids(manifest_table(entries))
    count = len(table)
    for name, values in (("shard", [0] * count), ("row", range(count))):
        table = table.append_column(name, pa.array(values, pa.int32()))
    return table.append_column("earlier", pa.nulls(count, pa.string()))


def measure_stages(
    config: Config, photos: list[Path], output: Path, least_masks: int = MASKS
) -> tuple[dict[str, Any], pa.Table]:
    """What `Rates` says of the stages, and the bytes of an image in the tables between them; the rows at their end."""
    at = config.placement
    table, root = manifest_of(photos), str(photos[0].parent)
    load = Load(root, config.corpus, config.segmenter.decode_side, at.load.threads)
    pixels_per_image = pc.sum(pc.binary_length(load(table).column("pixels"))).as_py() / len(table)
    rows = max(1, int(config.ray.block_mb * 2**20 / pixels_per_image))
    loaded, load_s = measured(load, table, rows)
    threads = set_threads(at.segment.threads)
    segmenter = load_segmenter(config, workers=threads)
    sees: Any = Clock(segmenter, pick_device(config.segmenter.device))
    seen, segment_s = measured(SegmentStage(config, sees), loaded, rows, sees)
    related, relate_s = measured(Relate(config), seen, rows)
    threads_to_inpaint = set_threads(at.inpaint.threads)
    inpainter = load_inpainter(config, workers=threads_to_inpaint)
    fills: Any = Clock(inpainter.fill_many, pick_device(config.inpainter.device))
    inpainter.fill_many = fills  # type: ignore[method-assign]  # the stage calls no other
    stage = InpaintStage(config, root, inpainter)
    masked = related.filter(_masked(related))
    sample, sure = masked, config
    for cut in CUTS:  # only to measure: the share is the config's
        if len(sample) < least_masks:
            sure = config.model_copy(update={"policy": config.policy.model_copy(update={"cut": cut})})
            sample = Relate(sure)(seen)
            sample = sample.filter(_masked(sample))
    if not len(sample):
        print("no photo has anything that could be removed: give more of them, or inpaint counts as nothing")
    setting = f"at a cut of {sure.policy.cut or 'the default'}, with {threads_to_inpaint} threads"
    print(f"inpaint is measured on {len(sample)} photos, {setting}", flush=True)
    _, inpaint_s = measured(stage, sample, rows, fills)
    filled = stage(related)
    write = Write(root, str(output), "images", config.output.unchanged, at.write.threads)
    written, write_s = measured(write, filled, rows)
    return {
        "bytes_between": sum(each.nbytes for each in (loaded, seen, related, filled)) / len(table),
        "images": len(table),
        "threads": threads,
        "bytes_per_image": pc.sum(table.column("size")).as_py() / len(table),
        "pixels_per_image": pixels_per_image,
        "removal_share": len(masked) / len(related),
        "load": load_s,
        "segment": segment_s,
        "relate": relate_s,
        "inpaint": inpaint_s,
        "write": write_s,
    }, written


def _masked(table: pa.Table) -> pa.ChunkedArray:
    return pc.and_(table.column("mask").is_valid(), table.column("status").is_null())


def rows_of_a_block(photos: list[Path], config: Config) -> int:
    """How many of these photos a block holds, by the pixels of the first ones at the size that the model sees."""
    limits = Limits(config.corpus.max_pixels, config.corpus.min_side)
    some = [decode_with_header(p.read_bytes(), limits, config.segmenter.decode_side)[1].nbytes for p in photos[:8]]
    return max(1, int(config.ray.block_mb * 2**20 * len(some) / sum(some)))


def sample_of(folder: Path, config: Config, count: int, blocks: int, scratch: Path) -> list[Path]:
    """An even spread of a folder's photos, copied, and copied again for a run of so many blocks; returns the sample."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in config.corpus.extensions)
    if not files:
        raise SystemExit(f"{folder}: no photo there")
    spread = [files[int(i * len(files) / count)] for i in range(count)] if count < len(files) else files
    scratch.mkdir()
    for number in range(max(len(spread), blocks * rows_of_a_block(spread, config))):
        source = spread[number % len(spread)]
        shutil.copyfile(source, scratch / f"{number:06d}{source.suffix}")
    return sorted(scratch.iterdir())[: len(spread)]


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--config", default="local")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--page", type=float, default=0.05, help="Seconds of a request for a page of 1,000 keys.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = load_config(options.config, options.overrides)
    devices = {pick_device(part.device) for part in (config.segmenter, config.inpainter)}
    gpu = gpu_name() if devices != {"cpu"} else None
    with tempfile.TemporaryDirectory(prefix="stages-") as folder:
        scratch = Path(folder)
        if options.photos is None:
            options.photos = scratch / "demo"
            subprocess.run([sys.executable, ROOT / "jobs" / "make_demo.py", options.photos], check=True)
        sample = sample_of(options.photos, config, options.count, options.blocks, scratch / "photos")
        driver_s = driver_seconds(config)
        free = [free_share()]
        moments = list(watch(options.config, options.overrides, scratch / "photos", scratch / "run"))
        free.append(free_share())
        os.nice(NICENESS - os.nice(0))  # for good, so last
        stages, written = measure_stages(config, sample, scratch / "stages")
        commit_s = commit_seconds(written)
        print(f"{stages.pop('bytes_between'):.0f} bytes an image between the stages")
        free.append(free_share())
    machine = Machine(cpus=cores(), cpu_model=cpu_model(), gpu=gpu, free=round(sum(free) / len(free), 3))
    nothing = Overhead(start_s=0, end_s=0, cpu_s=0, worker_s=0, driver_s=0)
    alone = Rates(config=config.digest, machine=machine, overhead=nothing, **stages)
    extra = overhead(moments, alone, driver_s, commit_s).model_copy(update={"page_s": options.page})
    rates = alone.model_copy(update={"overhead": extra})
    text = rates.model_dump_json(indent=1) + "\n"
    if options.json:
        options.json.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
