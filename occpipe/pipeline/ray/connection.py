"""The connection to Ray: a cluster by its address, or a Ray of our own on this machine, and Ray Data's settings."""

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
from occpipe.pipeline.ray.local_ray import own_ray, quiet_core
from occpipe.pipeline.ray.private import is_stalled

_MB = 1 << 20
logger = logging.getLogger(__name__)
_LAST_LINE = re.compile(r"(?!ray\.)[\w.]*(Error|Exception): ")  # how a traceback ends, but for Ray's around it


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

    Blocks are small, so that the first images reach the GPU early. They are not smaller, because each costs 12 to 15 ms
    in each stage. Every stage catches its errors by row, so a failed block is a bug.
    """
    from ray.data import DataContext  # takes seconds, in which Ray itself can start
    from ray.util.annotations import RayDeprecationWarning

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # our own progress has what matters
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
    """Turn the failure of a worker into one line; the log has Ray's own message, the tracebacks of three processes."""
    try:
        yield
    except Exception as error:
        if is_stalled(error):
            waited = "no block of any stage ended within ray.no_progress_timeout_s"
            raise RunError(f"{waited}; the same command goes on from here") from error
        if not isinstance(error, RayError):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        logger.error("a worker failed", exc_info=error)
        last = [line for line in lines if _LAST_LINE.match(line)] or lines
        raise RunError(f"a worker failed: {last[-1]}") from error


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[None]:
    with quiet_core():  # its warnings repeat the error that is raised
        check_cluster(address)
    with quiet_core(), ray_starts(f"the Ray cluster at {address} does not take this driver"):
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
