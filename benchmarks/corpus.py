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
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
MB = 1 << 20
SAMPLE_S = 1.0  # a look at every process costs some milliseconds of CPU


def pss_bytes(root: psutil.Process) -> int:
    """Proportional set size of a process and all below it."""
    total = 0
    for process in (root, *root.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue  # it ended between listing and reading
    return total


def object_store_bytes(root: psutil.Process) -> int:
    """Bytes that Ray's object store has touched: the blocks of the shared file that the raylet holds open."""
    best = 0
    for process in root.children(recursive=True):
        try:
            if process.name() != "raylet":
                continue
            for entry in Path(f"/proc/{process.pid}/fd").iterdir():
                if "plasma" in str(entry.readlink()):  # the file is unlinked, so only its descriptor leads to it
                    best = max(best, entry.stat().st_blocks * 512)
        except (psutil.Error, OSError):
            continue
    return best


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


def measure(photos: str, output: str, config: str, limit: int | None) -> dict[str, float]:
    """One run, from the start of the process to its end."""
    command = [sys.executable, "-m", "occpipe", "clean", photos, output, "--config", config]
    command += ["--limit", str(limit)] if limit else []
    seen = observe(command)
    memory = {"peak_mb": seen.memory // MB, "object_store_mb": seen.object_store // MB}
    if "://" in output:
        return {"seconds": round(seen.seconds, 1), **memory}
    images = json.loads(Path(output, "metadata", "_manifest.json").read_text())["images"]
    rate = round(images / seen.seconds, 2)
    return {"images": images, "seconds": round(seen.seconds, 1), "images_per_s": rate, **memory}


@dataclass(frozen=True)
class Seen:
    """A process and all below it, watched to its end: seconds, seconds until a file came, and peaks in bytes."""

    seconds: float
    first_s: float | None
    memory: int
    object_store: int


def observe(command: list[str], first: tuple[Path, str] | None = None, env: dict[str, str] | None = None) -> Seen:
    """Run a command and watch it; `first` is the folder and the pattern of the first file that is waited for."""
    started = time.monotonic()
    run = subprocess.Popen(command, cwd=ROOT, env=env)
    root = psutil.Process(run.pid)
    memory = store = sampled = 0.0
    first_s = None
    while run.poll() is None:
        now = time.monotonic() - started
        if first and first_s is None and any(first[0].glob(first[1])):
            first_s = now
        if now - sampled >= SAMPLE_S:
            with contextlib.suppress(psutil.NoSuchProcess):
                memory, store = max(memory, pss_bytes(root)), max(store, object_store_bytes(root))
            sampled = now
        time.sleep(0.05)
    if run.wait():
        raise SystemExit(run.returncode)
    return Seen(time.monotonic() - started, first_s, int(memory), int(store))


if __name__ == "__main__":
    main()
