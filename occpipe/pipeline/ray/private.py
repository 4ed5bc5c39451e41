"""All that is used of Ray beside its public API, in one place. An upgrade of Ray must look at each function here.

    here                  of Ray                                            checked by
    only_loopback         ray_constants, AuthenticationTokenLoader          tests/integration/test_isolation.py
    without_services      parameter.RayParams, Node.start_api_server        tests/integration/test_local_ray.py
    data_for_one_node     ray.data._internal: stats, cluster_autoscaler     tests/integration/test_local_ray.py
    check_head            _raylet.GcsClient                                 tests/unit/pipeline/test_checks.py
    local_heads           _private.services                                 tests/unit/pipeline/test_checks.py
    temp_folder           _common.utils                                     tests/unit/pipeline/test_checks.py
    map_whole_blocks      Dataset.map_batches_internal                      tests/integration/test_gpu.py
    is_stalled            the name of an error of ray.data                  tests/integration/test_pipeline.py

None of this has a switch in Ray, hence the bounds of its version in pyproject.toml. `own_ray` also sets `_system_config`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import parameter, ray_constants, services
from ray._private.node import Node
from ray._raylet import AuthenticationTokenLoader, GcsClient  # type: ignore[attr-defined]  # compiled

if TYPE_CHECKING:
    from ray.data import Dataset  # whose import takes seconds


@contextlib.contextmanager
def only_loopback() -> Iterator[None]:
    """A Ray that starts meanwhile listens on loopback only, and takes a token of this process.

    Ray turns an address of 127.0.0.1 into that of the host. Its switch for machines with a firewall is the only way around
    that. Only this process and its children have the token, and no disk has it.
    """
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()  # of an earlier one
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
def without_services() -> Iterator[None]:
    """A Ray that starts meanwhile has no autoscaler, log monitor or dashboard. Its agent stays, for Prometheus."""
    bare = functools.partial(parameter.RayParams, no_monitor=True, include_log_monitor=False)
    with (
        _replaced(parameter, "RayParams", bare),
        _replaced(Node, "start_api_server", lambda *_, **__: None),
    ):
        yield


@contextlib.contextmanager
def data_for_one_node() -> Iterator[None]:
    """Ray Data works meanwhile without two actors: one for the dashboard's statistics, one that divides a cluster."""
    from ray.data._internal import stats
    from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler as autoscaler

    with (
        _replaced(stats, "get_or_create_stats_actor", _NoActor),
        _replaced(autoscaler, "DefaultAutoscalingCoordinator", _WholeNode),
    ):
        yield


def check_head(host: str, port: int, timeout_s: float) -> None:
    """Raise an error of Ray where the head of a cluster does not serve this driver."""
    GcsClient(address=f"{host}:{port}").check_alive([], timeout=timeout_s)


def local_heads() -> list[str]:
    """The addresses of the clusters that run on this machine, or that Ray has in its cache."""
    return [*services.find_gcs_addresses(), services.find_bootstrap_address(None) or ""]


def temp_folder() -> Path:
    """The folder in which Ray keeps its sockets, logs and spilled objects."""
    return Path(get_default_ray_temp_dir())


def map_whole_blocks(rows: Dataset, worker: type, **options: object) -> Dataset:
    """`map_batches` over whole blocks; the public one takes none where GPUs are in use, and a batch size mixes shards."""
    return rows.map_batches_internal(worker, batch_size=None, batch_format="pyarrow", **options)


def is_stalled(error: Exception) -> bool:
    """Whether Ray Data has ended because no block came; its error is no RayError."""
    return type(error).__name__ == "ExecutionTimeoutError"  # by name: it may not be imported


@contextlib.contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class _NoActor:
    """In the place of an actor: each of its methods does nothing."""

    def __getattr__(self, name: str) -> _NoActor:
        return self

    def remote(self, *_: object, **__: object) -> None:
        pass


class _WholeNode:
    """In the place of Ray Data's coordinator: the one data set has the whole node."""

    def __init__(self, **_: object) -> None:
        self._resources = ray.cluster_resources()

    def request_resources(self, **_: object) -> None:
        pass

    def cancel_request(self) -> None:
        pass

    def get_reserved_resources(self) -> dict[str, dict[str, float]]:
        return {"node": self._resources}
