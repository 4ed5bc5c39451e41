"""Why Ray would not start or answer: checked within seconds, before Ray itself, with an error of one line.

Ray itself waits minutes for a cluster that does not answer, and leaves other reasons in the log of a dead process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ray.exceptions import RayError

from occpipe.core.errors import ClusterError, first_line
from occpipe.pipeline.ray.private import check_head, local_heads, temp_folder

ANSWER_S = 15.0
"""How long a cluster may take to answer; with the imports of Ray an unanswered address ends within 30 s."""
ALIVE_S = 10.0
MAX_SOCKET_PATH = 107
_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
SHM = Path("/dev/shm")  # noqa: S108 - it is looked at, nothing is written
_ASK = "check ray.address and RAY_ADDRESS, or leave both out to start a Ray on this machine"


def check_cluster(address: str) -> None:
    """Raise ClusterError where no cluster answers at `address`, which is as `ray.init` takes it.

    A connection is tried again until `ANSWER_S` are over, because a head node may be starting. Where the nodes use TLS, a
    port that is open must do.
    """
    host, port = _host_and_port(address)
    deadline, fault = time.monotonic() + ANSWER_S, "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left):
                break
        except OSError as error:
            fault = error.strerror or first_line(error)
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
    else:
        raise ClusterError(f"no Ray cluster answers at {address} ({fault}); {_ASK}")
    if os.environ.get("RAY_USE_TLS", "0") == "0" and not _is_grpc_server(host, port, deadline):
        raise ClusterError(f"what answers at {address} is no Ray cluster; {_ASK}")
    if not address.startswith("ray://"):  # whose server is another one
        with ray_starts(f"the Ray cluster at {address} does not serve this driver"):
            check_head(host, port, ALIVE_S)


def check_machine() -> None:
    """Raise ClusterError where a Ray of its own could not start on this machine."""
    for fault in (shm_fault(), folder_fault()):
        if fault:
            raise ClusterError(fault)


def shm_fault() -> str | None:
    """What is wrong with the shared memory, where Ray keeps its objects; None where nothing is."""
    if not SHM.is_dir():
        return f"{SHM} is missing, and Ray keeps its objects there; mount it (docker run --shm-size=2g)"
    if not os.access(SHM, os.W_OK | os.X_OK):
        return (
            f"{SHM} cannot be written, and Ray keeps its objects there; mount it for writing (docker run --shm-size=2g)"
        )
    return None


def ray_folder() -> tuple[Path, Path]:
    """Ray's folder, and the nearest one above it that exists."""
    folder = temp_folder()
    return folder, next(parent for parent in (folder, *folder.parents) if parent.exists())


def folder_fault() -> str | None:
    """What is wrong with the folder of `ray_folder`; None where nothing is."""
    folder, there = ray_folder()
    way_out = "set RAY_TMPDIR to a folder of yours with a short path"
    if len(f"{folder}{_SOCKET}".encode()) > MAX_SOCKET_PATH:
        return f"the path of Ray's folder {folder} is too long for a socket; {way_out}"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        owner = ""
        with contextlib.suppress(KeyError, OSError):
            owner = f" and belongs to {there.owner()}"
        return f"Ray's folder {there} cannot be written{owner}; {way_out}"
    return None


@contextlib.contextmanager
def ray_starts(what: str) -> Iterator[None]:
    """Turn an error of Ray's start into a ClusterError with `what` in front."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise ClusterError(f"{what}: {first_line(error)}") from error


def _host_and_port(address: str) -> tuple[str, int]:
    head = next(iter(local_heads())) if address == "auto" else address
    host, colon, port = head.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 1 << 16):
        if address == "auto":
            raise ClusterError(f"ray.address or RAY_ADDRESS is auto, and no Ray cluster runs on this machine; {_ASK}")
        raise ClusterError(f"{address!r} is no address of a Ray cluster, such as 10.0.0.1:6379; {_ASK}")
    return host.strip("[]"), int(port)


def _is_grpc_server(host: str, port: int, deadline: float) -> bool:
    import grpc

    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", options) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=max(1.0, deadline - time.monotonic()))
        except grpc.FutureTimeoutError:
            return False
    return True
