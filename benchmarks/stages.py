"""What each stage costs alone, and what the pipeline adds to it: the file of rates that `occpipe plan` reads.

Each stage runs here as in the pipeline (its class, batches, threads and niceness) but outside Ray, over a sample of photos;
one `occpipe clean` over the same photos, in `--blocks` blocks of 64, is watched from outside. What the whole process tree
burns beside the stages while blocks come out one after another is the pipeline's; what precedes the first block and
follows the last one is the start and the end. Runs that do nothing say what a block costs the driver, and processes that
only spin, what share of the cores other work leaves: the rates hold for a machine that is as busy.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
import torch
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from benchmarks.machine import NICENESS, cpu_model, free_share, gpu_name
from occpipe.cluster import configure_data, ray_session
from occpipe.config import Config
from occpipe.config_file import load_config
from occpipe.ledger import PARTS
from occpipe.models import load_inpainter, load_segmenter, pick_device, set_threads
from occpipe.plan import POOLS, STAGES, UNIT_ROWS, Machine, Overhead, Rates, Seconds
from occpipe.schemas import MANIFEST
from occpipe.stages.discover import image_id
from occpipe.stages.fetch import Fetch
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.relate import Relate
from occpipe.stages.segment import SegmentStage
from occpipe.stages.sink import Sink

ROOT = Path(__file__).parents[1]
MASKS = 8  # photos with a removal that inpaint is measured on; with fewer, bolder cuts give more
CUTS = (0.24, 0.5, 1.0)
EMPTY_BLOCKS = (10, 110)
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


def measured(stage: Stage, table: pa.Table, batch_size: int, clock: Clock | None = None) -> tuple[pa.Table, Seconds]:
    """The table as a stage leaves it, and its seconds an image; the first batch is done before, to warm up."""
    if not len(table):
        return stage(table), Seconds(worker_s=0, cpu_s=0)
    stage(table.slice(0, batch_size))
    gpu = clock.seconds if clock else 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    done = [stage(table.slice(start, batch_size)) for start in range(0, len(table), batch_size)]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    gpu = clock.seconds - gpu if clock else 0.0
    count = len(table)
    return pa.concat_tables(done), Seconds(worker_s=wall / count, cpu_s=cpu / count, gpu_s=gpu / count)


def measure_stages(config: Config, photos: list[Path], output: Path) -> dict[str, Any]:
    """What `Rates` says of the stages; and the bytes of an image in the tables between them."""
    at = config.placement
    names = [photo.name for photo in photos]
    sizes = [photo.stat().st_size for photo in photos]
    table = pa.table([[image_id(name) for name in names], names, sizes, names], schema=MANIFEST)
    root = str(photos[0].parent)
    fetched, fetch = measured(Fetch(root, config.corpus, at.fetch.threads), table, at.fetch.batch_size)
    threads = set_threads(at.segment.threads, share=1.0)
    segmenter = load_segmenter(config, workers=threads)
    sees: Any = Clock(segmenter, pick_device(config.segmenter.device))
    seen, segment = measured(SegmentStage(config, sees), fetched, at.segment.batch_size, sees)
    related, relate = measured(Relate(config), seen, at.relate.batch_size)
    inpainter = load_inpainter(config)
    fills: Any = Clock(inpainter.fill_many, pick_device(config.inpainter.device))
    inpainter.fill_many = fills  # type: ignore[method-assign]  # the stage calls no other
    stage = InpaintStage(config, inpainter)
    masked, whole = (related.filter(mask) for mask in (_masked(related), pc.invert(_masked(related))))
    share = len(masked) / len(related)
    sample, sure = masked, config
    for cut in CUTS:  # only to measure: the share is the config's
        if len(sample) < MASKS:
            sure = config.model_copy(update={"policy": config.policy.model_copy(update={"cut": cut})})
            sample = Relate(sure)(seen)
            sample = sample.filter(_masked(sample))
    if not len(sample):
        print("no photo has anything that could be removed: give more of them, or inpaint counts as nothing")
    print(f"inpaint is measured on {len(sample)} photos, at a cut of {sure.policy.cut or 'the default'}", flush=True)
    _, inpaint = measured(stage, sample, at.inpaint.batch_size, fills)
    passed, untouched = measured(stage, whole, at.inpaint.batch_size, fills)
    table = pa.concat_tables([stage(masked), passed])
    sink = Sink(str(output), "images", 1, config.output.unchanged, at.sink.threads)
    _, written = measured(sink, table, at.sink.batch_size)
    return {
        "bytes_between": (fetched.nbytes + seen.nbytes + related.nbytes + table.nbytes) / len(table),
        "images": len(names),
        "threads": threads,
        "bytes_per_image": sum(sizes) / len(sizes),
        "removal_share": share,
        "fetch": fetch,
        "segment": segment,
        "relate": relate,
        "inpaint": inpaint,
        "untouched": untouched,
        "sink": written,
    }


def _masked(table: pa.Table) -> pa.ChunkedArray:
    return pc.and_(table.column("mask").is_valid(), table.column("status").is_null())


@dataclass(frozen=True)
class Moment:
    """A run, seen from outside: seconds since its start, rows written, CPU seconds of all its processes."""

    seconds: float
    rows: int
    cpu: float


def watch(config: str, overrides: list[str], photos: Path, output: Path) -> Iterator[Moment]:
    """Run `occpipe clean`, and yield a moment whenever rows come out, and one for its end."""
    command = [sys.executable, "-m", "occpipe", "clean", str(photos), str(output), "--config", config]
    command += [part for setting in (*overrides, "ray.from_images=0") for part in ("--set", setting)]
    begun = time.monotonic()
    run = subprocess.Popen(command, cwd=ROOT)
    root, burnt, written = psutil.Process(run.pid), dict[int, float](), dict[Path, int]()
    while run.poll() is None:
        new = {part for part in output.glob(f"{PARTS}/*.parquet") if part.name[0] != "."} - written.keys()
        if new:
            now = time.monotonic() - begun
            for process in (root, *root.children(recursive=True)):
                try:
                    spent = process.cpu_times()
                except psutil.Error:
                    continue  # it has ended; what it burnt before counts
                burnt[process.pid] = spent.user + spent.system
            written |= {part: pq.read_metadata(part).num_rows for part in new}
            yield Moment(now, sum(written.values()), sum(burnt.values()))
        time.sleep(0.1)
    if run.returncode:
        raise SystemExit(run.returncode)
    yield Moment(time.monotonic() - begun, sum(written.values()), sum(burnt.values()))


def overhead(moments: list[Moment], alone: Rates, driver_s: float) -> Overhead:
    """What a watched run has beside the seconds that its stages take alone.

    From the first block to the last but one all stages have work; while the last one is in work, the first ones idle.
    """
    *written, end = moments
    first = written[0]
    last = [moment for moment in written if moment.rows <= end.rows - UNIT_ROWS or moment is first][-1]
    images = last.rows - first.rows
    if not images:
        raise SystemExit("the run came out in too few blocks: give --blocks 4 or more")
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
    )


class Nothing:
    """A stage that does nothing."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch


def driver_seconds(config: Config) -> float:
    """CPU seconds of the driver for a block on its way through all stages, from runs of two lengths that do nothing.

    An upper bound: on few cores it waits for its workers here too, and looks up now and then while it waits.
    """
    spent = []
    with ray_session(config.ray):
        configure_data(config.ray)
        for blocks in EMPTY_BLOCKS:
            rows = ray.data.range(blocks, override_num_blocks=blocks)
            for name in STAGES:
                at = getattr(config.placement, name)
                how = ActorPoolStrategy(size=1) if name in POOLS else TaskPoolStrategy()
                work = Nothing if name in POOLS else Nothing().__call__
                rows = rows.map_batches(work, batch_format="pyarrow", num_cpus=at.num_cpus, compute=how)
            begun = time.process_time()
            for _ in rows.iter_batches(batch_format="pyarrow", batch_size=None):
                pass
            spent.append(time.process_time() - begun)
    return max(0.0, (spent[1] - spent[0]) / (EMPTY_BLOCKS[1] - EMPTY_BLOCKS[0]))


def sample_of(folder: Path, config: Config, count: int, blocks: int, scratch: Path) -> list[Path]:
    """An even spread of a folder's photos, copied, and copied again for a run of so many blocks; returns the sample."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in config.corpus.extensions)
    if not found:
        raise SystemExit(f"{folder}: no photo there")
    spread = [found[int(i * len(found) / count)] for i in range(count)] if count < len(found) else found
    scratch.mkdir()
    for number in range(max(len(spread), blocks * UNIT_ROWS)):
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
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    config = load_config(wanted.config, wanted.overrides)
    devices = {pick_device(part.device) for part in (config.segmenter, config.inpainter)}
    gpu = gpu_name() if devices != {"cpu"} else None
    with tempfile.TemporaryDirectory(prefix="stages-") as folder:
        scratch = Path(folder)
        if wanted.photos is None:
            wanted.photos = scratch / "demo"
            subprocess.run([sys.executable, ROOT / "jobs" / "make_demo.py", wanted.photos], check=True)
        sample = sample_of(wanted.photos, config, wanted.count, wanted.blocks, scratch / "photos")
        driver_s = driver_seconds(config)
        free = [free_share()]
        moments = list(watch(wanted.config, wanted.overrides, scratch / "photos", scratch / "run"))
        free.append(free_share())
        os.nice(NICENESS - os.nice(0))  # for good, so last
        stages = measure_stages(config, sample, scratch / "stages")
        print(f"{stages.pop('bytes_between'):.0f} bytes an image between the stages")
        free.append(free_share())
    cpus = os.cpu_count() or 1
    machine = Machine(cpus=cpus, cpu_model=cpu_model(), gpu=gpu, free=round(sum(free) / len(free), 3))
    nothing = Overhead(start_s=0, end_s=0, cpu_s=0, worker_s=0, driver_s=0)
    alone = Rates(config=config.digest, machine=machine, overhead=nothing, **stages)
    rates = alone.model_copy(update={"overhead": overhead(moments, alone, driver_s)})
    text = rates.model_dump_json(indent=1) + "\n"
    if wanted.json:
        wanted.json.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
