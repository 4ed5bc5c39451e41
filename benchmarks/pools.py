"""Pools of their own for segment and inpaint, or one pool whose actors do both, on Ray and over the same photos.

Bound, either way, by the stages' CPU seconds on a CPU, and by the models' seconds on a GPU. What a pool of its own costs is
one more hop of the rows; what it brings is that an inpainter is not loaded where nothing waits for it. Rates are of whole
runs and of their middle half, when all actors are up; memory is the proportional set size of all processes.
Run: python benchmarks/pools.py [--photos DIR] [--limit 300] [--set KEY=VALUE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import ray.data
from ray.data import Dataset

from benchmarks.corpus import MB, pss_bytes
from benchmarks.throughput import shuffled
from occpipe.config import Config
from occpipe.config_file import load_config
from occpipe.journal import GuardedInpaint, GuardedSegment, Stoppable, Timed
from occpipe.on_ray import build, in_pool, in_tasks
from occpipe.pipeline import run
from occpipe.recipe import Build, of_corpus
from occpipe.stages.discover import Discovery
from occpipe.stages.fetch import Fetch
from occpipe.stages.relate import Relate
from occpipe.stages.sink import Sink
from occpipe.stages.source import ManifestSource
from occpipe.summary import Tick


class Both(GuardedSegment):
    """An actor that segments, decides and inpaints."""

    def __init__(self, config: Config, journal: Any) -> None:
        super().__init__(config, journal)
        self._then = (Timed("relate", Relate(config), journal), GuardedInpaint(config, journal))

    def __call__(self, batch: pa.Table) -> pa.Table:
        done = super().__call__(batch)
        for stage in self._then:
            done = stage(done)
        return done


def build_together(config: Config, found: Discovery, sink: Sink, journal: Any) -> Dataset:
    """As `occpipe.on_ray.build`, with one pool: it has the CPUs and GPUs of both."""
    at = config.placement
    rows = ray.data.read_datasource(ManifestSource(sink.output, found))
    fetch = Stoppable(Fetch(found.root, config.corpus, at.fetch.threads), journal)
    rows = in_tasks(rows, Timed("fetch", fetch, journal), at.fetch)
    both = {
        "num_cpus": at.segment.num_cpus + at.inpaint.num_cpus,
        "num_gpus": at.segment.num_gpus + at.inpaint.num_gpus,
    }
    rows = in_pool(rows, Both, config, journal, at.segment.model_copy(update=both), at.segment.ahead)
    return in_tasks(rows, Timed("sink", sink, journal), at.sink)


def middle(ticks: list[Tick]) -> float:
    """Images/s from the first quarter of the images to the last."""
    whole = ticks[-1].statuses.total()
    inner = [tick for tick in ticks if whole / 4 <= tick.statuses.total() <= 3 * whole / 4]
    rows = inner[-1].statuses.total() - inner[0].statuses.total()
    return rows / (inner[-1].seconds - inner[0].seconds)


def measure(name: str, how: Build, config: Config, photos: Path, output: Path) -> None:
    """One run."""
    ticks: list[Tick] = []
    memory: list[int] = []

    def note(tick: Tick) -> None:
        ticks.append(tick)
        memory.append(pss_bytes(psutil.Process()))

    recipe = replace(of_corpus(config, str(photos), str(output)), build=how)
    done = run(recipe, config, str(output), on_progress=note)
    whole = done.statuses.total() / done.seconds
    print(f"{name:9} {whole:6.2f} images/s, {middle(ticks):6.2f} in the middle, {max(memory) // MB} MB", flush=True)


def main() -> None:
    """Both ways, the product's first and last, so that a machine that slows down shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="A folder; the demo's photos by default.")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--config", default="local")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    wanted = parser.parse_args()
    config = load_config(wanted.config, wanted.overrides)
    with tempfile.TemporaryDirectory(prefix="pools-") as folder:
        here = Path(folder)
        if wanted.photos is None:
            wanted.photos = here / "demo"
            subprocess.run([sys.executable, Path(__file__).parents[1] / "jobs/make_demo.py", wanted.photos], check=True)
        shuffled(wanted.photos, config, wanted.limit, 0, here / "photos")
        for number, (name, how) in enumerate((("separate", build), ("together", build_together), ("separate", build))):
            measure(name, how, config, here / "photos", here / str(number))


if __name__ == "__main__":
    main()
