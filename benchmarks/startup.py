"""The parts of the start of `occpipe clean`, and of its end, over the demo's photos.

Bound by imports: torch and Ray are thousands of modules, and each pool loads torch in a process of its own. The moments are
those of the processes themselves, written down by `hooks/stamps.py`, of the run's own JSON log, and of the first file with
rows. `@` is seconds since the command, and beside it how long the part took. What follows the last part is the end: the
commits, the sums and Ray's shutdown.
Run: python benchmarks/startup.py [--photos DIR] [--runs 3] [--set KEY=VALUE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.corpus import LOOK_S, ROOT, is_written
from benchmarks.machine import free_share
from benchmarks.processes import Processes
from occpipe.dataset.layout import METADATA, Layout

HOOKS = ROOT / "benchmarks" / "hooks"
POOL_CALLS = {
    "segment pool": "occpipe.models.loading.load_segmenter",
    "inpaint pool": "occpipe.models.loading.load_inpainter",
}
IMPORTS = ("import occpipe.pipeline.run", "import cv2", "import ray", "import ray.data", "import torch")
Part = tuple[str, float, float]
"""A name, when it ended, and how long it took, in seconds since the command."""


def stamps_of(folder: Path) -> list[dict[str, dict[str, float]]]:
    """Of each process that wrote any, its moments by name."""
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in sorted(folder.iterdir())]
    return [{line["what"]: line for line in process} for process in lines]


def parts_of(stamps: list[dict[str, dict[str, float]]], log: list[dict[str, Any]], command: float) -> Iterator[Part]:
    """The parts of a start that the processes and the log tell of; the first one that began is the driver."""

    def part(name: str, process: dict[str, dict[str, float]], what: str) -> Iterator[Part]:
        if what in process:
            yield name, process[what]["ended"] - command, process[what]["ended"] - process[what]["begun"]

    driver, *others = sorted(stamps, key=lambda process: process["process"]["ended"])
    yield from part("driver: Python", driver, "process")
    for name in (*IMPORTS, "ray.init"):
        yield from part(f"driver: {name}", driver, name)
    if log:
        yield "driver: first look at the stages", log[0]["at"] - command, 0.0
    for pool, call in POOL_CALLS.items():
        for process in others:
            if call in process:
                yield f"{pool}: Python", process["process"]["ended"] - command, 0.0
                for name in IMPORTS:
                    yield from part(f"{pool}: {name}", process, name)
                yield from part(f"{pool}: weights", process, call)
                yield from part(f"{pool}: first block", process, f"first {pool[0].upper()}{pool.split()[0][1:]}Stage")
    loads = [process["first Load"] for process in others if "first Load" in process]
    if loads:
        first = min(loads, key=lambda one: one["ended"])
        yield "tasks: first load", first["ended"] - command, first["ended"] - first["begun"]


def watch(
    command: list[str], output: Path, environment: dict[str, str]
) -> tuple[float, float | None, float, Processes]:
    """Run a command: when it began (of the clock), seconds to the first row and to the end, and its processes."""
    begun, first = time.time(), None
    run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    processes, looked = Processes(run.pid), 0.0
    while run.poll() is None:
        now = time.time() - begun
        folders = (output / Layout().all_parts, output / METADATA)
        if first is None and any(is_written(path) for folder in folders for path in folder.rglob("*.parquet")):
            first = now
        if now - looked > LOOK_S:
            looked = now
            processes.look()
        time.sleep(0.02)
    if run.returncode:
        raise SystemExit(run.returncode)
    return begun, first, time.time() - begun, processes


def measure(photos: Path, scratch: Path, overrides: list[str]) -> dict[str, Any]:
    """One run."""
    stamps, output, log = scratch / "stamps", scratch / "output", scratch / "log.jsonl"
    stamps.mkdir(parents=True)
    command = [sys.executable, "-m", "occpipe", "clean", str(photos), str(output), "--log-json", str(log)]
    command += [part for setting in overrides for part in ("--set", setting)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"OCCPIPE_STAMPS": str(stamps), "PYTHONPATH": f"{HOOKS}{os.pathsep}{ROOT}"}
    begun, first, ended, processes = watch(command, output, environment)
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] != "log"]
    ticks = [line | {"at": datetime.fromisoformat(line["time"]).timestamp()} for line in lines]
    parts = sorted(parts_of(stamps_of(stamps), ticks, begun), key=lambda part: part[1])
    return {"parts": parts, "first_row_s": first, "seconds": ended, "cpu_s": processes.cpu_by_kind()}


def main() -> None:
    """Run some times, print the parts of each run and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="A folder; the demo's photos by default.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=["policy.cut=0.24"], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        scratch = Path(folder)
        if options.photos is None:
            options.photos = scratch / "demo"
            subprocess.run([sys.executable, ROOT / "jobs" / "make_demo.py", options.photos], check=True)
        print(f"{free_share(0):.0%} of the cores are free", flush=True)
        runs = []
        for number in range(options.runs):
            runs.append(measure(options.photos, scratch / str(number), options.overrides))
            print(f"run {number + 1}: first row @ {runs[-1]['first_row_s']:.1f} s, end @ {runs[-1]['seconds']:.1f} s")
            for name, at, took in runs[-1]["parts"]:
                print(f"  @ {at:5.1f} s  {name:34} {f'{took:5.2f} s' if took else ''}")
            print(f"  CPU seconds: {runs[-1]['cpu_s']}", flush=True)
    medians = {name: round(statistics.median(run[name] for run in runs), 1) for name in ("first_row_s", "seconds")}
    if options.json:
        options.json.write_text(json.dumps({**medians, "runs": runs}, indent=1) + "\n")
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
