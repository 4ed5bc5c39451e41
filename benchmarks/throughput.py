"""How near occpipe comes to what bounds it, and how it compares with doing without it; ratios of one run.

On the same photos, weights and config: (a) the sequential way of the paper's program, (b) a good single-process loop, (c)
each stage alone at its best batch, (d) `occpipe clean` as it is, and on Ray. A rate counts from the start of a process to
its end, models and Ray included. The bound counts neither: on a CPU it is the cores divided by the CPU seconds of all
stages, on a GPU the rate of the slowest stage. `--seeds` runs all of it again in another order of the photos; medians are
given, and the range beside them. Reads from one stage to the next are counted in bytes of Arrow tables, which is what goes
through Ray's object store.
With `--device cuda` (where there was none, this part has never run) the models are EoMT-L and LaMa with random weights of
the real sizes, made from their configs: what they cost is measured, not what they see.
Run: python benchmarks/throughput.py --photos DIR --limit 1000 --json FILE [--seeds 3] [--device cuda] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import MB, ROOT, observe
from benchmarks.machine import cpu_model, free_share, gpu_name
from benchmarks.stages import measure_stages
from occpipe.config import Config
from occpipe.config_file import load_config
from occpipe.ledger import PARTS
from occpipe.plan import POOLS, STAGES, Machine, Overhead, Rates

WAYS = ("sequential", "loop", "occpipe", "ray")
BATCHES = (8, 32)
FAIR = {"RAY_worker_niceness": "0"}  # Ray's workers step back behind all else, which the other ways do not
NOTHING = Overhead(start_s=0, end_s=0, cpu_s=0, worker_s=0, driver_s=0)


@dataclass(frozen=True)
class Timed:
    """One way, from the start of its process to its end; of (a), what an inpainter that sees empty masks would save."""

    images_per_s: float
    seconds: float
    first_row_s: float | None
    peak_mb: int
    object_store_mb: int
    idle_s: float = 0.0


def run_way(way: str, photos: Path, output: Path, config: Path, count: int) -> Timed:
    """Run one way and watch it."""
    if way in ("sequential", "loop"):
        command = [sys.executable, str(ROOT / "benchmarks" / "ways.py"), way, str(photos), str(output), str(config)]
        first = None
    else:
        command = [sys.executable, "-m", "occpipe", "clean", str(photos), str(output), "--config", str(config)]
        command += ["--set", "ray.from_images=0"] if way == "ray" else []
        first = (output / PARTS, "*.parquet")
    seen = observe(command, first, {**os.environ, **FAIR, "PYTHONPATH": str(ROOT)})
    idle = json.loads((output / "way.json").read_text()).get("idle_s", 0.0) if first is None else 0.0
    rate = count / seen.seconds
    return Timed(rate, seen.seconds, seen.first_s, seen.memory // MB, seen.object_store // MB, idle)


def best_rates(config: Config, photos: list[Path], scratch: Path) -> tuple[Rates, float]:
    """Each stage alone with all cores, at the batch size at which it costs least; and the bytes between the stages."""
    tried = []
    for size in BATCHES:
        sizes = {name: getattr(config.placement, name).model_copy(update=_placed(name, size)) for name in STAGES}
        placed = config.model_copy(update={"placement": config.placement.model_copy(update=sizes)})
        tried.append(measure_stages(placed, photos, scratch / f"stages{size}"))
    best = dict(tried[0])
    for name in (*STAGES, "untouched"):
        cost = "worker_s" if gpu_name() else "cpu_s"
        best[name] = min((one[name] for one in tried), key=lambda seconds: float(getattr(seconds, cost)))
    machine = Machine(cpus=os.cpu_count() or 1, cpu_model=cpu_model(), gpu=gpu_name(), free=1.0)
    between = best.pop("bytes_between")
    return Rates(config=config.digest, machine=machine, overhead=NOTHING, **best), between


def _placed(name: str, size: int) -> dict[str, int]:
    return {"batch_size": size, "threads": os.cpu_count() or 1} if name in POOLS else {"batch_size": size}


def bound_of(rates: Rates) -> float:
    """Images/s that nothing could pass: all cores at work on nothing but the stages, or the slowest stage of a GPU."""
    if rates.machine.gpu:
        return 1 / max(rates.of(name).worker_s for name in STAGES)
    return rates.machine.cpus / rates.cpu_s


def shuffled(folder: Path, config: Config, limit: int, seed: int, into: Path) -> list[Path]:
    """Links to photos in an order of their own, which their names keep; small corpora are gone through again."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in config.corpus.extensions)
    if not found:
        raise SystemExit(f"{folder}: no photo there")
    order = np.random.default_rng(seed).permutation(len(found))
    into.mkdir()
    for number in range(limit):
        source = found[order[number % len(found)]]
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
        for way in ways:
            timed[way] = run_way(way, scratch / "photos", scratch / way, settings, limit)
            print(f"  {way:10} {timed[way].images_per_s:6.2f} images/s  {timed[way]}", flush=True)
        rates, between = best_rates(config, photos[:: max(1, limit // sample)], scratch)
        free.append(free_share(0))
    bound = bound_of(rates)
    print(f"  bound      {bound:6.2f} images/s", flush=True)
    done, first = timed["occpipe"], timed.get("sequential")
    made = {
        "seed": seed,
        "free_cores": sum(free) / len(free),
        "bound_images_per_s": bound,
        "images_per_s": done.images_per_s,
        "efficiency": done.images_per_s / bound,
        "peak_mb": done.peak_mb,
        "first_row_s": done.first_row_s,
        "object_store_bytes_per_image": between,
    }
    if first:
        made["vs_sequential"] = done.images_per_s / first.images_per_s
        made["vs_sequential_that_skips"] = done.images_per_s * (first.seconds - first.idle_s) / limit
    if "loop" in timed:
        made["vs_loop"] = done.images_per_s / timed["loop"].images_per_s
    if "ray" in timed:
        made["efficiency_on_ray"] = timed["ray"].images_per_s / bound
        made["first_row_on_ray_s"] = timed["ray"].first_row_s
    return made | {"ways": {way: asdict(one) for way, one in timed.items()}, "rates": rates.model_dump(mode="json")}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the runs, and its range."""
    names = [name for name, value in runs[0].items() if isinstance(value, float | int) and name != "seed"]
    values = {name: [run[name] for run in runs] for name in names}
    medians = {name: round(statistics.median(found), 3) for name, found in values.items()}
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
    parser.add_argument("--config", default="local")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="An order of the photos each.")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--sample", type=int, default=100, help="Photos that the bound is measured on.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    wanted = parser.parse_args()
    config = load_config(wanted.config, wanted.overrides)
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        if wanted.photos is None:
            wanted.photos = Path(folder) / "demo"
            subprocess.run([sys.executable, ROOT / "jobs" / "make_demo.py", wanted.photos], check=True)
        runs = []
        for seed in wanted.seeds:
            print(f"order {seed}", flush=True)
            runs.append(one_run(config, wanted.photos, wanted.limit, seed, wanted.ways, wanted.sample))
    made = {"photos": wanted.limit, "machine": runs[0]["rates"]["machine"], **summary(runs), "runs": runs}
    if wanted.json:
        wanted.json.write_text(json.dumps(made, indent=1) + "\n")
    if wanted.plot:
        plot(runs, wanted.plot)
    print(json.dumps({name: value for name, value in made.items() if name != "runs"}))


if __name__ == "__main__":
    main()
