"""What a run adds to its stages, on Ray and without, watched from outside; for `benchmarks/stages.py`, which says how."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from occpipe.cluster import configure_data, ray_session
from occpipe.config import Config, Placement
from occpipe.ledger import PARTS
from occpipe.placing import POOLS, STAGES
from occpipe.plan import UNIT_ROWS, Cluster, Plan, plan_without_ray
from occpipe.rates import Crew, Overhead, Rates

ROOT = Path(__file__).parents[1]
EMPTY_BLOCKS = (10, 110)


@dataclass(frozen=True)
class Moment:
    """A run, seen from outside: seconds since its start, rows written, CPU seconds of all its processes."""

    seconds: float
    rows: int
    cpu: float


def watch(config: str, overrides: list[str], photos: Path, output: Path, *more: str) -> Iterator[Moment]:
    """Run `occpipe clean` with more options, and yield a moment whenever rows come out, and one for its end."""
    command = [sys.executable, "-m", "occpipe", "clean", str(photos), str(output), "--config", config, *more]
    command += [part for setting in overrides for part in ("--set", setting)]
    begun = time.monotonic()
    run = subprocess.Popen(command, cwd=ROOT)
    root, burnt, written = psutil.Process(run.pid), dict[int, float](), dict[Path, int]()
    ended = False
    while not ended:
        ended = run.poll() is not None
        new = {part for part in output.glob(f"{PARTS}/*.parquet") if part.name[0] != "."} - written.keys()
        if new:
            now = time.monotonic() - begun
            for process in () if ended else (root, *root.children(recursive=True)):
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


def watch_crew(config: str, overrides: list[str], photos: Path, output: Path, *more: str) -> tuple[Moment, float]:
    """The end of a run without Ray, with CPU seconds of all its processes, and the seconds from its last row to there."""
    before = _cpu_of_children()
    *_, last, end = watch(config, overrides, photos, output, *more)
    return replace(end, cpu=_cpu_of_children() - before), end.seconds - last.seconds


def _cpu_of_children() -> float:
    """CPU seconds of all processes below this one that ended and were waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def crew_overhead(few: Moment, many: Moment, end_s: float, alone: Rates, free: float, at: Placement) -> Crew:
    """What two runs without Ray, seen at their ends, have beside the seconds that their stages take alone.

    It is such that a plan with it takes as long as they did.
    """
    if not (images := many.rows - few.rows):
        raise SystemExit("both runs without Ray have as many images: give --blocks 2 or more")
    here = Cluster(1, alone.machine.cpus, 0 if alone.machine.gpu is None else 1)

    def planned(found: Crew) -> Plan:
        return plan_without_ray(alone.model_copy(update={"crew": found}), few.rows, here, at)

    per_image, cpu = (many.seconds - few.seconds) / images, (many.cpu - few.cpu) / images
    found = Crew(start_s=0, end_s=end_s, cpu_s=cpu - alone.stages_cpu_s, worker_s=0, free=free)
    print(f"without Ray: {per_image:.4f} s an image, {cpu:.4f} s of cores", flush=True)
    if per_image > 1 / planned(found).images_per_s:
        bound = next(bound for bound in planned(found).bounds if bound.name == "workers")
        found = found.model_copy(update={"worker_s": max(0.0, per_image * bound.workers - bound.seconds)})
    return found.model_copy(update={"start_s": max(0.0, few.seconds - planned(found).wall_s)})


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
