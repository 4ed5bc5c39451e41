"""Reaching Ray: a cluster by its address, or a Ray of our own on this machine, and Ray Data's settings."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import secrets
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import parameter, ray_constants
from ray._private.node import Node
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled
from ray.exceptions import RayError

from occpipe.config import RayRuntime
from occpipe.errors import RunError

_MB = 1 << 20
_KEEP_WORKERS_MS = 600_000
"""Ray ends an idle worker after a second, and the next task starts one, which imports for two."""
_RAISED = re.compile(r"(?!ray\.)[\w.]*(Error|Exception): ")  # how a traceback ends, but for Ray's around it


def job_name(output_uri: str) -> str:
    """The name of the jobs that write an output: readable, and another one for another output."""
    uri = output_uri.rstrip("/")
    readable = re.sub(r"[^a-z0-9]+", "-", uri.rpartition("/")[2].lower()).strip("-")[:40]
    return "-".join(filter(None, ("occpipe", readable, hashlib.sha256(uri.encode()).hexdigest()[:8])))


@contextlib.contextmanager
def ray_session(settings: RayRuntime) -> Iterator[None]:
    """A connection to Ray for the time of a run: the one at `address` or RAY_ADDRESS, else a Ray of its own.

    A Ray that runs in this process already is used and left running.
    """
    started = not ray.is_initialized()
    if started:
        _connect(settings)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


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
def _quiet_core() -> Iterator[None]:
    """Ray's C++ core writes to standard error past Python, also to say how much it will say; its failures are raised."""
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


def _connect(settings: RayRuntime) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default, and no warning about it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the core warns on this terminal whatever Python asks for
    address = settings.address or os.environ.get("RAY_ADDRESS", "local")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        options |= {
            "num_cpus": 2 if os.cpu_count() == 1 else None,  # logical: on one core the two pools and a task share it
            "object_store_memory": settings.object_store_mb * _MB,
            "include_dashboard": False,
            "_system_config": {"idle_worker_killing_time_threshold_ms": _KEEP_WORKERS_MS},
        }
    with _quiet_core(), _private() if address == "local" else contextlib.nullcontext():
        ray.init(address=address, **options)


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """A Ray of our own answers nobody else, for it takes what it is told for an order.

    It listens on loopback: Ray turns an address of 127.0.0.1 into that of the host, and its switch for machines whose
    firewall would ask is the one way around that. And it asks for a token that is known to this process and those it
    starts, and written on no disk. Its autoscaler, its log monitor and the head of the dashboard that it does not have are
    left out: each is a process that takes seconds to start, for one node that does not grow and whose logs nobody reads.
    """
    parameters, start_api_server = parameter.RayParams, Node.start_api_server
    parameter.RayParams = functools.partial(parameters, no_monitor=True, include_log_monitor=False)
    Node.start_api_server = lambda *_, **__: None
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()  # Ray may remember another one from before
    switch, here = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    for_children = os.environ.get(switch)
    os.environ[switch], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        parameter.RayParams, Node.start_api_server = parameters, start_api_server
        ray_constants.ENABLE_RAY_CLUSTER = here
        del os.environ[switch]
        if for_children is not None:
            os.environ[switch] = for_children
