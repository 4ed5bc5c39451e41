"""The cores and GPUs of a worker's node: how many the worker may use, and how busy they are."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import psutil


def cores() -> int:
    """The number of cores that this process may run on: a container or `taskset` may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_use() -> float:
    """The utilization of all cores of this node since the last call in this process, 0 to 1; 0 at the first call."""
    return psutil.cpu_percent() / 100


def gpu_use() -> float | None:
    """The mean utilization of this worker's GPUs over NVML's last sample (up to a second), 0 to 1.

    None if the worker has no GPU, or NVML cannot read it: no driver, or a slice of a GPU (MIG).
    """
    import ray

    return _use_of(ray.get_gpu_ids() if ray.is_initialized() else [])


def _use_of(ids: list[int | str]) -> float | None:
    nvml = _nvml() if ids else None
    if nvml is None:
        return None
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(int(number)) for number in ids]
        return float(sum(nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles)) / (100 * len(handles))
    except (nvml.NVMLError, ValueError):  # the id of a slice is not a number
        return None


@cache
def _nvml() -> Any:
    """NVIDIA's management library, or None without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
