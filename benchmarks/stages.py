"""What each stage costs alone, and what the pipeline adds to it: the file of rates that `occpipe plan` reads.

Each stage runs here as in the pipeline (its class, batches, threads and niceness) but outside Ray, over a sample of photos;
one `occpipe clean` on Ray over the same photos, in `--blocks` blocks of 64, is watched from outside. What the whole process
tree burns beside the stages while blocks come out one after another is the pipeline's; what precedes the first block and
follows the last one is the start and the end. Runs that do nothing say what a block costs the driver. Without Ray rows come
out almost one by one, and it is two runs, of one block and of all, whose difference is what an image costs; what is left of
the first is the start and the end. Processes that only spin say what share of the cores other work leaves: the rates hold
for a machine that is as busy.
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
from benchmarks.overheads import crew_overhead, driver_seconds, overhead, watch, watch_crew
from occpipe.config import Config
from occpipe.config_file import load_config
from occpipe.gauges import cores
from occpipe.models import load_inpainter, load_segmenter, pick_device, set_threads
from occpipe.placing import wants_ray
from occpipe.plan import UNIT_ROWS
from occpipe.rates import Machine, Overhead, Rates, Seconds
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
        on_ray = [*wanted.overrides, "ray.from_images=0"]
        moments = list(watch(wanted.config, on_ray, scratch / "photos", scratch / "run"))
        free.append(free_share())
        free_for_crew, ends = [free_share(0)], []
        without_ray = [*wanted.overrides, f"ray.from_images={sys.maxsize}"]
        if not wants_ray(load_config(wanted.config, without_ray), 1):
            for name, more in (("few", ("--limit", str(UNIT_ROWS))), ("many", ())):
                ends.append(watch_crew(wanted.config, without_ray, scratch / "photos", scratch / name, *more))
            free_for_crew.append(free_share(0))
        os.nice(NICENESS - os.nice(0))  # for good, so last
        stages = measure_stages(config, sample, scratch / "stages")
        print(f"{stages.pop('bytes_between'):.0f} bytes an image between the stages")
        free.append(free_share())
    machine = Machine(cpus=cores(), cpu_model=cpu_model(), gpu=gpu, free=round(sum(free) / len(free), 3))
    nothing = Overhead(start_s=0, end_s=0, cpu_s=0, worker_s=0, driver_s=0)
    alone = Rates(config=config.digest, machine=machine, overhead=nothing, **stages)
    rates = alone.model_copy(update={"overhead": overhead(moments, alone, driver_s)})
    if ends:
        (few, end_s), (many, _) = ends
        share = sum(free_for_crew) / len(free_for_crew)
        crew = crew_overhead(few, many, end_s, alone, round(share, 3), config.placement)
        rates = rates.model_copy(update={"crew": crew})
    text = rates.model_dump_json(indent=1) + "\n"
    if wanted.json:
        wanted.json.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
