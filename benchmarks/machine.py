"""The machine of a benchmark: its processor, its GPU, and the share of its cores that other work leaves."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from occpipe.core.resources import cores

NICENESS = int(os.environ.get("RAY_worker_niceness", "15"))  # noqa: SIM112 - Ray calls it so
"""Of Ray's workers, which matters where other work competes with them."""
SPIN_S = 2
_SPIN = (
    "import os, sys, time as t\nos.nice(int(sys.argv[1]) - os.nice(0))\n"
    "begin, cpu = t.monotonic(), t.process_time()\n"
    f"while t.monotonic() < begin + {SPIN_S}: pass\nprint((t.process_time() - cpu) / (t.monotonic() - begin))"
)


def free_share(niceness: int = NICENESS) -> float:
    """The share of this machine's cores that a process of this niceness on each of them gets now."""
    command = [sys.executable, "-c", _SPIN, str(niceness)]
    spinning = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(cores())]
    shares = [float(process.communicate()[0]) for process in spinning]
    return min(1.0, sum(shares) / len(shares))


def cpu_model() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def gpu_name() -> str | None:
    """The GPU's name, None where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
