"""A Ray of our own on this machine: it answers no other user, and starts no process that one node does not need.

Ray is made for clusters that many people use. Here one driver uses one node, so the parts that watch, grow and share a
cluster are left out: see `private`. Each is a process that imports for seconds on the cores that the first images wait for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

import ray

from occpipe.pipeline.ray.checks import check_machine, ray_starts
from occpipe.pipeline.ray.private import data_for_one_node, only_loopback, without_services

KEEP_WORKERS_MS = 600_000
"""How long a worker waits for a task. Ray's own second is too short: the next task starts one, which imports for two."""


@contextlib.contextmanager
def own_ray(object_store_bytes: int) -> Iterator[None]:
    """A Ray of our own for a time."""
    check_machine()
    with quiet_core(), only_loopback(), without_services(), ray_starts("Ray does not start on this machine"):
        ray.init(
            address="local",
            num_cpus=2 if os.cpu_count() == 1 else None,  # logical: on one core the two pools and a task share it
            object_store_memory=object_store_bytes,
            include_dashboard=False,
            _system_config={"idle_worker_killing_time_threshold_ms": KEEP_WORKERS_MS},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    try:
        with data_for_one_node():
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def quiet_core() -> Iterator[None]:
    """Ray's C++ core writes to standard error past Python; its failures are raised."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default, and no warning about it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the core warns on this terminal whatever Python sets
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
