"""The processes of a run, by psutil: CPU seconds by kind, peaks of memory and of Ray's object store.

A process counts by its last kind: Ray starts a worker without a name, gives it to a pool or to tasks, and shows that in its
title. CPU seconds are sampled, so that those between the last sample and the end of a process are missing.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from occpipe.pipeline.steps import POOLS

SERVICES = (
    "raylet",
    "gcs_server",
    "monitor.py",
    "dashboard.py",
    "agent.py",
    "agent/main.py",
    "RuntimeEnvAgent",
    "DashboardAgent",
)
OWN_ACTORS = ("ray::_", "ray::ActorLocationTracker", "ray::AutoscalingRequester")
IDLE = "idle workers"
KINDS = ("driver", *(f"{pool} pool" for pool in POOLS), "tasks", "journal", "Ray's actors", "Ray's services", IDLE)


def kind_of(title: str) -> str:
    """Which of KINDS a process below the driver is, by its command line."""
    if any(name in title for name in SERVICES):
        return "Ray's services"
    if title.startswith("ray::MapWorker"):
        return next((f"{pool} pool" for pool in POOLS if pool in title.lower()), "tasks")
    if title.startswith(OWN_ACTORS):
        return "Ray's actors"
    if title.startswith("ray::Journal"):
        return "journal"
    return "tasks" if title.startswith("ray::") and not title.startswith("ray::IDLE") else IDLE


class Processes:
    """A process and all below it. Look at them often; what was burnt and the peaks are kept."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seconds, self._kinds = dict[int, float](), dict[int, str]()
        self.memory = self.object_store = 0

    def look(self, *, memory: bool = False) -> None:
        """Read CPU times; with `memory` the proportional set size (shared pages count once) and the object store, too."""
        held = 0
        for process in self._alive():
            try:
                times = process.cpu_times()
                self._seconds[process.pid] = times.user + times.system
                kind = "driver" if process == self._root else kind_of(" ".join(process.cmdline()))
                if (
                    kind != IDLE or process.pid not in self._kinds
                ):  # between two tasks it is idle, and stays what it was
                    self._kinds[process.pid] = kind
                if memory:
                    held += process.memory_full_info().pss
                    self.object_store = max(self.object_store, _object_store(process))
            except (psutil.Error, OSError):
                continue  # it ended between listing and reading
        self.memory = max(self.memory, held)

    def cpu_by_kind(self) -> dict[str, float]:
        """CPU seconds so far, in the order of KINDS; kinds that were not there are left out."""
        spent = dict.fromkeys(KINDS, 0.0)
        for pid, kind in self._kinds.items():
            spent[kind] += self._seconds[pid]
        return {kind: round(seconds, 2) for kind, seconds in spent.items() if seconds}

    def _alive(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _object_store(process: psutil.Process) -> int:
    """Bytes that Ray's object store has touched: the blocks of the shared file that the raylet holds open."""
    if process.name() != "raylet":
        return 0
    files = [entry for entry in Path(f"/proc/{process.pid}/fd").iterdir() if "plasma" in str(entry.readlink())]
    return max(
        (entry.stat().st_blocks * 512 for entry in files), default=0
    )  # unlinked: only its descriptor leads to it
