"""What of a worker's node it may use, and how much of it is in use: its cores, and its GPUs where there are any."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import psutil


def cores() -> int:
    """The cores that this process may run on: a container or `taskset` may leave it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_use() -> float:
    """The share of all cores of this node in use since the last call in this process; 0 at the first one."""
    return psutil.cpu_percent() / 100


def gpu_use() -> float | None:
    """The mean share of time in which this worker's GPUs computed, over NVML's last sample (up to a second).

    None where the worker has no GPU, or NVML does not know it: no driver, a slice of a GPU (MIG).
    """
    import ray

    return _use_of(ray.get_gpu_ids() if ray.is_initialized() else [])


def _use_of(ids: list[int | str]) -> float | None:
    nvml = _nvml() if ids else None
    if nvml is None:
        return None
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(int(one)) for one in ids]
        return float(sum(nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles)) / (100 * len(handles))
    except (nvml.NVMLError, ValueError):  # an id that is no number is that of a slice
        return None


@cache
def _nvml() -> Any:
    """NVIDIA's management library, or None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
