"""Throughput of occpipe against its bound and against two simpler programs; ratios of one run.

On the same photos, weights and config: (a) the sequential way of the paper's program, (b) a good single-process loop, (c)
each stage alone in its best way, (d) `occpipe clean`. A rate counts from the start of a process to its end, models and Ray
included. The bound counts neither: on a CPU it is the cores divided by the CPU seconds of all stages, on a GPU the rate of
the slowest stage. What lies between the two is told by process: CPU seconds of the driver, of each pool, of the tasks and
of Ray's own processes, and the share of the cores that the run left idle. `--seeds` runs all of it again in another order
of the photos; medians are given, and the range beside them. Reads from one stage to the next are counted in bytes of Arrow
tables, which is what goes through Ray's object store.
With `--device cuda` the models are EoMT-L and LaMa with random weights of the real sizes: what they cost is measured, not
what they see. The GPU's own clock (CUDA events) times the stages, and nvidia-smi says how busy it is in a run. There was no
GPU where this was written: that part has run with small nets on a CPU (`--device cpu --random`), and on no GPU.
Run: python benchmarks/throughput.py --photos DIR --limit 1000 --json FILE [--seeds 0 1 2] [--device cuda] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.corpus import MB, ROOT, observe
from benchmarks.machine import cpu_model, free_share, gpu_name
from benchmarks.stages import measure_stages
from occpipe.core.config import Config
from occpipe.core.config_file import load_config
from occpipe.core.resources import cores
from occpipe.dataset.layout import METADATA, Layout
from occpipe.models.loading import pick_device
from occpipe.pipeline.planning.rates import Machine, Overhead, Rates, Seconds
from occpipe.pipeline.steps import POOLS, STAGES

WAYS = ("occpipe", "sequential", "loop")
BATCHES = (8, 32)
FAIR = {"RAY_worker_niceness": "0"}  # Ray's workers step back behind all else, which the other ways do not
HOOKS = ROOT / "benchmarks" / "hooks"
NOTHING = Overhead(start_s=0, end_s=0, cpu_s=0, worker_s=0, driver_s=0)


@dataclass(frozen=True)
class Timed:
    """One way, from the start of its process to its end; of (a), what an inpainter that sees empty masks would save.

    `cpu_s` are CPU seconds by kind of process, `idle` the share of all cores that it did not use.
    """

    images_per_s: float
    seconds: float
    first_row_s: float | None
    peak_mb: int
    object_store_mb: int
    cpu_s: dict[str, float] = field(default_factory=dict)
    idle: float = 0.0
    idle_s: float = 0.0
    gpu_busy: float | None = None


def random_models(folder: Path, device: str) -> list[str]:
    """Models of the real sizes on a GPU, small ones on a CPU, as overrides; this process and its children accept them."""
    os.environ["OCCPIPE_RANDOM_WEIGHTS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join((str(HOOKS), str(ROOT)))
    from benchmarks.hooks.sitecustomize import install
    from benchmarks.shapes import EOMT_L, SMALL, save_eomt, save_lama

    install()
    folder.mkdir()
    save_eomt(folder / "eomt", EOMT_L if device == "cuda" else SMALL)
    save_lama(folder / "big-lama.pt", *(() if device == "cuda" else (4, 1)))
    models = [f"segmenter.model=hf:{folder}/eomt", "inpainter.model=big-lama", f"weights.dir={folder}"]
    return [*models, f"segmenter.device={device}", f"inpainter.device={device}", "policy.remove=[cat]"]


class Busy:
    """How busy nvidia-smi says the first GPU is, looked at once a second; the middle half of a run counts."""

    def __enter__(self) -> Self:
        command = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-l", "1"]
        program = shutil.which(command[0])
        self._watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if program else None
        return self

    def __exit__(self, *_: object) -> None:
        self.share: float | None = None
        if self._watch:
            self._watch.terminate()
            shares = [int(line) / 100 for line in self._watch.communicate()[0].split() if line.isdigit()]
            middle = shares[len(shares) // 4 : -len(shares) // 4] or shares
            self.share = statistics.mean(middle) if middle else None


def run_way(way: str, photos: Path, output: Path, config: Path, count: int) -> Timed:
    """Run one way and watch it."""
    if way in ("sequential", "loop"):
        command = [sys.executable, str(ROOT / "benchmarks" / "ways.py"), way, str(photos), str(output), str(config)]
        first: tuple[Path, ...] = ()
    else:
        command = [sys.executable, "-m", "occpipe", "clean", str(photos), str(output), "--config", str(config)]
        first = (output / Layout().all_parts, output / METADATA)
    with Busy() as gpu:
        seen = observe(command, first, {"PYTHONPATH": str(ROOT), **os.environ, **FAIR})
    report = {} if first else json.loads((output / "way.json").read_text())
    return Timed(
        images_per_s=count / seen.seconds,
        seconds=seen.seconds,
        first_row_s=seen.first_s,
        peak_mb=seen.memory // MB,
        object_store_mb=seen.object_store // MB,
        cpu_s=seen.cpu,
        idle=max(0.0, 1 - sum(seen.cpu.values()) / (cores() * seen.seconds)),
        idle_s=report.get("idle_s", 0.0),
        gpu_busy=gpu.share,
    )


def best_rates(config: Config, photos: list[Path], scratch: Path) -> tuple[Rates, float]:
    """Each stage alone with all cores, in the way in which it costs least; and the bytes between the stages.

    Ways are batch sizes on a GPU; on a CPU, where they cost the same, one process with a thread for each core or a process
    of one thread on each.
    """
    on_gpu = {pick_device(part.device) for part in (config.segmenter, config.inpainter)} != {"cpu"}
    ways = [
        (_placed(config, size, cores()), scratch / f"stages{size}") for size in (BATCHES if on_gpu else BATCHES[:1])
    ]
    tried = [stage_costs(placed, photos, folder) for placed, folder in ways]
    if not on_gpu:
        tried.append(mean_of(side_by_side(_placed(config, BATCHES[0], 1), photos, scratch)))
    cost, best = "worker_s" if on_gpu else "cpu_s", dict(tried[0])
    for name in STAGES:
        best[name] = min((one[name] for one in tried), key=lambda seconds: float(getattr(seconds, cost)))
    gpu = gpu_name() if on_gpu else None
    machine = Machine(cpus=cores(), cpu_model=cpu_model(), gpu=gpu, free=1.0)
    between = best.pop("bytes_between")
    return Rates(config=config.digest, machine=machine, overhead=NOTHING, **best), between


def side_by_side(config: Config, photos: list[Path], scratch: Path) -> list[dict[str, Any]]:
    """What `stage_costs` says in as many processes at once as there are cores."""
    folders = [scratch / f"beside-{process}" for process in range(cores())]
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:
        return list(pool.map(partial(stage_costs, config, photos), folders))


def mean_of(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of what was measured several times of the stages; all else as it was first."""
    mean = dict(measured[0])
    for name in STAGES:
        values = [one[name].model_dump() for one in measured]
        mean[name] = Seconds(**{key: statistics.mean(value[key] for value in values) for key in values[0]})
    return mean


def stage_costs(config: Config, photos: list[Path], output: Path) -> dict[str, Any]:
    """The figures of `measure_stages`; inpaint is measured on what the run removes, and on no other masks."""
    return measure_stages(config, photos, output, least_masks=1)[0]


def _placed(config: Config, size: int, threads: int) -> Config:
    """The config with batches of one size and so many threads in the pools."""
    update = {"batch_size": size, "threads": threads}
    stages = {name: getattr(config.placement, name).model_copy(update=update) for name in POOLS}
    return config.model_copy(update={"placement": config.placement.model_copy(update=stages)})


def bound_of(rates: Rates) -> float:
    """Images/s that nothing could pass: all cores at work on nothing but the stages, or the slowest stage of a GPU.

    `rates.machine` has a GPU where the models ran on one.
    """
    if rates.machine.gpu:
        return 1 / max(rates.of(name).worker_s for name in STAGES)
    return rates.machine.cpus / rates.cpu_s


def shuffled(folder: Path, config: Config, limit: int, seed: int, into: Path) -> list[Path]:
    """Links to photos in an order of their own, which their names keep; small corpora are gone through again."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in config.corpus.extensions)
    if not files:
        raise SystemExit(f"{folder}: no photo there")
    order = np.random.default_rng(seed).permutation(len(files))
    into.mkdir()
    for number in range(limit):
        source = files[order[number % len(files)]]
        (into / f"{number:06d}{source.suffix}").symlink_to(source.resolve())
    return sorted(into.iterdir())


def one_run(config: Config, folder: Path, limit: int, seed: int, ways: Sequence[str], sample: int) -> dict[str, Any]:
    """All ways on one order of the photos."""
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        scratch = Path(name)
        photos = shuffled(folder, config, limit, seed, scratch / "photos")
        settings = scratch / "config.yaml"
        settings.write_text(config.model_dump_json())
        timed, free = {}, [free_share(0)]
        # A machine that others use is faster at some times than at others, so the bound is measured before and after.
        before, between = best_rates(config, photos[:sample], scratch / "before")
        for way in ways:
            timed[way] = run_way(way, scratch / "photos", scratch / way, settings, limit)
            print(f"  {way:10} {timed[way].images_per_s:6.2f} images/s  {timed[way]}", flush=True)
        after, _ = best_rates(config, photos[:sample], scratch / "after")
        free.append(free_share(0))
    rates = before.model_copy(
        update=mean_of([{name: getattr(one, name) for name in STAGES} for one in (before, after)])
    )
    bound = bound_of(rates)
    print(f"  bound      {bound:6.2f} images/s, {limit * rates.stages_cpu_s:.1f} CPU s in all stages", flush=True)
    done, first = timed["occpipe"], timed.get("sequential")
    result = {
        "seed": seed,
        "free_cores": sum(free) / len(free),
        "bound_images_per_s": bound,
        "images_per_s": done.images_per_s,
        "efficiency": done.images_per_s / bound,
        "peak_mb": done.peak_mb,
        "first_row_s": done.first_row_s,
        "idle_cores": done.idle,
        "object_store_bytes_per_image": between,
    }
    if first:
        result["vs_sequential"] = done.images_per_s / first.images_per_s
        result["vs_sequential_that_skips"] = done.images_per_s * (first.seconds - first.idle_s) / limit
    if "loop" in timed:
        result["vs_loop"] = done.images_per_s / timed["loop"].images_per_s
    if done.gpu_busy is not None:
        result["gpu_busy"] = done.gpu_busy
    parts = {f"cpu_s {kind}": seconds for kind, seconds in done.cpu_s.items()}
    return (
        result
        | parts
        | {"cpu_s of the stages": limit * rates.stages_cpu_s}
        | {"ways": {way: asdict(one) for way, one in timed.items()}, "rates": rates.model_dump(mode="json")}
    )


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the runs, and its range."""
    names = [name for name, value in runs[0].items() if isinstance(value, float | int) and name != "seed"]
    values = {name: [run.get(name, 0.0) for run in runs] for name in names}
    medians = {name: round(statistics.median(numbers), 3) for name, numbers in values.items()}
    return medians | {"range": {name: [round(min(v), 3), round(max(v), 3)] for name, v in values.items()}}


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """The rates of all ways beside the bound: the median as a bar, each run as a dot."""
    from matplotlib.figure import Figure

    bars = {way: [run["ways"][way]["images_per_s"] for run in runs] for way in runs[0]["ways"]}
    bars["bound"] = [run["bound_images_per_s"] for run in runs]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for at, (way, rates) in enumerate(bars.items()):
        median = statistics.median(rates)
        axes.barh(at, median, color="0.75" if way == "bound" else "C0")
        axes.plot(rates, [at] * len(rates), "k.", markersize=5)
        axes.text(median, at - 0.28, f" {median:.1f}")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("images/s, from the start of the process to its end")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run, print, write the JSON and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="A folder; the demo's photos by default.")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--config", help="By default local, and gpu with --device cuda.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--random", action="store_true", help="Random weights on a CPU as well, of small nets.")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="An order of the photos each.")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--sample", type=int, default=100, help="Photos that the bound is measured on.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and gpu_name() is None:
        raise SystemExit("--device cuda: there is no GPU here, and nothing was measured")
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        if options.photos is None:
            options.photos = Path(folder) / "demo"
            subprocess.run([sys.executable, ROOT / "jobs" / "make_demo.py", options.photos], check=True)
        config_name = options.config or ("gpu" if options.device == "cuda" else "local")
        if options.random or options.device == "cuda":
            options.overrides = [*random_models(Path(folder) / "models", options.device), *options.overrides]
        config = load_config(config_name, options.overrides)
        runs = []
        for seed in options.seeds:
            print(f"order {seed}", flush=True)
            runs.append(one_run(config, options.photos, options.limit, seed, options.ways, options.sample))
    result = {"photos": options.limit, "machine": runs[0]["rates"]["machine"], **summary(runs), "runs": runs}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        plot(runs, options.plot)
    print(json.dumps({name: value for name, value in result.items() if name != "runs"}))


if __name__ == "__main__":
    main()
