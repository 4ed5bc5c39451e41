"""A Ray of our own on this machine: it answers nobody else, and starts no process that one node does not need.

Ray is made for clusters that many people use. Here one driver uses one node, so what watches, grows and shares a cluster is
left out: the autoscaler, the log monitor, the dashboard, and two actors of Ray Data, one that keeps figures for the
dashboard and one that deals the nodes out to several data sets. Each is a process that imports for seconds on the cores
that the first images wait for. None of this has a switch in Ray, hence the pinned version and the private names below;
`tests/integration/test_local_ray.py` checks that they still do what they should.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import parameter, ray_constants
from ray._private.node import Node
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled

from occpipe.pipeline.ray.checks import check_machine, ray_starts

QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
KEEP_WORKERS_MS = 600_000
"""How long a worker waits for a task. Ray's own second is too short: the next task starts one, which imports for two."""


@contextlib.contextmanager
def own_ray(object_store_bytes: int) -> Iterator[None]:
    """A Ray of our own for a time."""
    check_machine()
    with quiet_core(), _private(), _bare(), ray_starts("Ray does not start on this machine"):
        ray.init(
            address="local",
            num_cpus=2 if os.cpu_count() == 1 else None,  # logical: on one core the two pools and a task share it
            object_store_memory=object_store_bytes,
            include_dashboard=False,
            _system_config={"idle_worker_killing_time_threshold_ms": KEEP_WORKERS_MS},
            **QUIET,
        )
    try:
        with _alone():
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def quiet_core() -> Iterator[None]:
    """Ray's C++ core writes to standard error past Python, also to say how much it will say; its failures are raised."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default, and no warning about it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the core warns on this terminal whatever Python asks for
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


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """What is started meanwhile listens on loopback only, and asks for a token that this process made.

    Ray turns an address of 127.0.0.1 into that of the host, and its switch for machines whose firewall would ask is the one
    way around that. The token is known to this process and those it starts, and written on no disk.
    """
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()  # Ray may remember another one from before
    switch = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    for_children = os.environ.get(switch)
    os.environ[switch] = "0"
    try:
        with _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False):
            yield
    finally:
        del os.environ[switch]
        if for_children is not None:
            os.environ[switch] = for_children


@contextlib.contextmanager
def _bare() -> Iterator[None]:
    """What is started meanwhile has no autoscaler, log monitor or dashboard. Its agent stays: Prometheus asks it."""
    bare = functools.partial(parameter.RayParams, no_monitor=True, include_log_monitor=False)
    with (
        _replaced(parameter, "RayParams", bare),
        _replaced(Node, "start_api_server", lambda *_, **__: None),
    ):
        yield


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Ray Data asks nobody meanwhile which part of the node is its own, and tells nobody its figures."""
    from ray.data._internal import stats
    from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler as autoscaler

    with (
        _replaced(stats, "get_or_create_stats_actor", _Nobody),
        _replaced(autoscaler, "DefaultAutoscalingCoordinator", _WholeNode),
    ):
        yield


@contextlib.contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class _Nobody:
    """In the place of an actor: each of its methods does nothing."""

    def __getattr__(self, name: str) -> _Nobody:
        return self

    def remote(self, *_: object, **__: object) -> None:
        pass


class _WholeNode:
    """In the place of Ray Data's coordinator: all that the node has is for the one data set."""

    def __init__(self, **_: object) -> None:
        self._resources = ray.cluster_resources()

    def request_resources(self, **_: object) -> None:
        pass

    def cancel_request(self) -> None:
        pass

    def get_reserved_resources(self) -> dict[str, dict[str, float]]:
        return {"node": self._resources}
