"""Run `occpipe clean` over a folder of photos and measure it from outside: rate, memory of all processes, object store.

    python benchmarks/corpus.py PHOTOS [OUTPUT] [--config local] [--limit N]
    python benchmarks/corpus.py PHOTOS --limit 1000 4000

Memory is the proportional set size (PSS) summed over the driver and everything Ray starts, so shared pages count once;
the object store's peak is what its file has ever touched. Both are sampled once a second and given as peaks. With several
limits it runs once for each (OUTPUT is the first one's), and says how memory grows with the corpus: the models, Ray's
processes and the blocks in flight are there for few photos already.
Without arguments it runs over the demo's photos, into a folder that is removed again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import Processes

ROOT = Path(__file__).parents[1]
MB = 1 << 20
LOOK_S, SAMPLE_S = 0.25, 1.0  # between looks at CPU times, and at memory, which costs some milliseconds of CPU


def main() -> None:
    """Run, sample, print one line of JSON."""
    parser = argparse.ArgumentParser(description="Measure occpipe clean from outside.")
    parser.add_argument("photos", nargs="?")
    parser.add_argument("output", nargs="?")
    parser.add_argument("--config", default="local")
    parser.add_argument("--limit", type=int, nargs="+", default=[None])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.photos is None:
            options.photos = f"{scratch}/input"
            subprocess.run([sys.executable, ROOT / "jobs" / "make_demo.py", options.photos], check=True)
        runs = []
        for number, limit in enumerate(options.limit):
            output = options.output if options.output and not number else f"{scratch}/output{number}"
            runs.append(measure(options.photos, output, options.config, limit))
            print(json.dumps(runs[-1]), flush=True)
        for limit, run in zip(options.limit[1:], runs[1:], strict=True):
            processes, store = (run[key] / max(1, runs[0][key]) for key in ("peak_mb", "object_store_mb"))
            print(
                f"{limit} images: {processes:.2f} times the memory of the first run, {store:.2f} times its object store"
            )


def measure(photos: str, output: str, config: str, limit: int | None) -> dict[str, Any]:
    """One run, from the start of the process to its end."""
    command = [sys.executable, "-m", "occpipe", "clean", photos, output, "--config", config]
    command += ["--limit", str(limit)] if limit else []
    seen = observe(command)
    memory = {"peak_mb": seen.memory // MB, "object_store_mb": seen.object_store // MB, "cpu_s": seen.cpu}
    if "://" in output:
        return {"seconds": round(seen.seconds, 1), **memory}
    images = json.loads(Path(output, "metadata", "_manifest.json").read_text())["images"]
    rate = round(images / seen.seconds, 2)
    return {"images": images, "seconds": round(seen.seconds, 1), "images_per_s": rate, **memory}


@dataclass(frozen=True)
class Seen:
    """A process and all below it, watched to its end: seconds, seconds until a file came, peaks in bytes, CPU seconds."""

    seconds: float
    first_s: float | None
    memory: int
    object_store: int
    cpu: dict[str, float]


def observe(command: list[str], first: Sequence[Path] = (), env: dict[str, str] | None = None) -> Seen:
    """Run a command and watch it; `first` are folders below which the first Parquet file is waited for."""
    started = time.monotonic()
    run = subprocess.Popen(command, cwd=ROOT, env=env)
    processes, looked, measured, first_s = Processes(run.pid), -LOOK_S, -SAMPLE_S, None
    while run.poll() is None:
        now = time.monotonic() - started
        if first_s is None and any(is_written(path) for folder in first for path in folder.rglob("*.parquet")):
            first_s = now
        if now - looked >= LOOK_S:
            looked, memory = now, now - measured >= SAMPLE_S
            measured = now if memory else measured
            processes.look(memory=memory)
        time.sleep(0.05)
    if run.returncode:
        raise SystemExit(run.returncode)
    seconds = time.monotonic() - started
    return Seen(seconds, first_s, processes.memory, processes.object_store, processes.cpu_by_kind())


def is_written(path: Path) -> bool:
    """Whether a file has its final name; the local store writes it under a hidden one."""
    return not path.name.startswith(".")


if __name__ == "__main__":
    main()
