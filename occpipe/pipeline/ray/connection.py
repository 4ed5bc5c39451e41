"""Reaching Ray: a cluster by its address, or a Ray of our own on this machine, and Ray Data's settings."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import warnings
from collections.abc import Iterator

import ray
from ray.exceptions import RayError

from occpipe.core.config import RayRuntime
from occpipe.core.errors import RunError
from occpipe.pipeline.ray.checks import check_cluster, ray_starts
from occpipe.pipeline.ray.local_ray import QUIET, own_ray, quiet_core

_MB = 1 << 20
_RAISED = re.compile(r"(?!ray\.)[\w.]*(Error|Exception): ")  # how a traceback ends, but for Ray's around it


def job_name(output_uri: str) -> str:
    """The name of the jobs that write an output: readable, and another one for another output."""
    uri = output_uri.rstrip("/")
    readable = re.sub(r"[^a-z0-9]+", "-", uri.rpartition("/")[2].lower()).strip("-")[:40]
    return "-".join(filter(None, ("occpipe", readable, hashlib.sha256(uri.encode()).hexdigest()[:8])))


def address_of(settings: RayRuntime) -> str:
    """Where Ray is reached; `local` is a Ray of its own."""
    return settings.address or os.environ.get("RAY_ADDRESS") or "local"


@contextlib.contextmanager
def ray_session(settings: RayRuntime) -> Iterator[None]:
    """A connection to Ray for the time of a run: the one at `address` or RAY_ADDRESS, else a Ray of its own.

    A Ray that runs in this process already is used and left running.
    """
    if ray.is_initialized():
        yield
        return
    address = address_of(settings)
    with own_ray(settings.object_store_mb * _MB) if address == "local" else _cluster(address):
        yield


def configure_data(settings: RayRuntime) -> None:
    """Ray Data's settings for this run.

    Blocks are kept small enough that the first images reach the GPU early and large enough that their fixed cost
    (12 to 15 ms a block and stage) stays small. Every stage catches its errors per row, so a failed block is a bug.
    """
    from ray.data import DataContext  # takes seconds, in which Ray itself can start
    from ray.util.annotations import RayDeprecationWarning

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # our own progress says what is worth saying
    # max_task_retries has no named parameter yet, and a corpus smaller than max_tasks is no reason to warn.
    warnings.filterwarnings("ignore", message=".*ray_remote_args", category=RayDeprecationWarning)
    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks")
    context = DataContext.get_current()
    context.target_max_block_size = settings.block_mb * _MB
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    context.execution_options.verbose_progress = False
    context.execution_no_progress_timeout_s = settings.no_progress_timeout_s


@contextlib.contextmanager
def one_line_failures() -> Iterator[None]:
    """A worker's failure as one line: Ray's own message is the traceback of three processes, and advice."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "ExecutionTimeoutError":  # of ray.data, which may not be imported; no RayError
            waited = "no block of any stage ended within ray.no_progress_timeout_s"
            raise RunError(f"{waited}; the same command goes on from here") from error
        if not isinstance(error, RayError):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raised = [line for line in lines if _RAISED.match(line)] or lines
        raise RunError(f"a worker failed: {raised[-1]}") from error


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[None]:
    with quiet_core():  # it warns of what is raised
        check_cluster(address)
    with quiet_core(), ray_starts(f"the Ray cluster at {address} does not take this driver"):
        ray.init(address=address, **QUIET)
    try:
        yield
    finally:
        ray.shutdown()
