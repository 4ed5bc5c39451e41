"""A cluster that does not answer, and a machine on which Ray cannot start: one line, soon, with exit code 5."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from occpipe.core.errors import ClusterError
from occpipe.pipeline.ray import checks as ray_checks
from tests.integration.test_isolation import can_make_namespaces


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_checks, "ANSWER_S", 0.5)


@pytest.fixture
def mute() -> Iterator[str]:
    """A port that is open and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def web_server() -> Iterator[str]:
    """A port that speaks something else."""

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("closed", "no Ray cluster answers at 127.0.0.1:"),
        ("ray://closed", "no Ray cluster answers at ray://127.0.0.1:"),
        ("mute", "is no Ray cluster"),
        ("web_server", "is no Ray cluster"),
        ("head.invalid:6379", "no Ray cluster answers at head.invalid:6379"),
        ("127.0.0.1", "is no address of a Ray cluster"),
        ("127.0.0.1:http", "is no address of a Ray cluster"),
        ("http://127.0.0.1:70000", "is no address of a Ray cluster"),
    ],
)
def test_an_address_at_which_no_cluster_answers(
    address: str, message: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if address in ("mute", "web_server"):
        address = request.getfixturevalue(address)
    with pytest.raises(ClusterError, match=message) as raised:
        ray_checks.check_cluster(address.replace("closed", closed_port()))
    assert raised.value.exit_code == 5
    assert "RAY_ADDRESS" in str(raised.value)


def test_auto_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", frozenset)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda _: None)
    with pytest.raises(ClusterError, match="is auto, and no Ray cluster runs on this machine"):
        ray_checks.check_cluster("auto")


def test_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray_checks, "SHM", tmp_path)
    assert ray_checks.shm_fault() is None
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "cannot be written" in (ray_checks.shm_fault() or "")
    monkeypatch.setattr(ray_checks, "SHM", tmp_path / "none")
    assert "is missing" in (ray_checks.shm_fault() or "")


def test_the_folder_of_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # noqa: S108 - nothing is written
    assert ray_checks.folder_fault() is None
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * 60}")  # noqa: S108
    assert "too long for a socket; set RAY_TMPDIR" in (ray_checks.folder_fault() or "")
    monkeypatch.setenv("RAY_TMPDIR", "/proc")  # where nobody makes a folder
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "/proc cannot be written and belongs to root" in (ray_checks.folder_fault() or "")
    with pytest.raises(ClusterError):
        ray_checks.check_machine()


@pytest.mark.parametrize(("error", "message"), [(OSError("no space"), "no space"), (ValueError("a\nb"), "a")])
def test_what_fails_while_ray_starts_is_one_line(error: Exception, message: str) -> None:
    with pytest.raises(ClusterError, match=f"^Ray: {message}$"), ray_checks.ray_starts("Ray"):
        raise error


STRANGER = """
import os, subprocess, sys
import ray
from occpipe.pipeline.ray.connection import ray_session
from occpipe.core.config import RayRuntime

with ray_session(RayRuntime(object_store_mb=128)):
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    env["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    done = subprocess.run([sys.executable, "-m", "occpipe", "clean", "in", "out"], env=env)
    print(env["RAY_ADDRESS"], done.returncode)
"""


def test_a_run_ends_with_exit_code_5(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "1.png")
    address = closed_port()
    command = [sys.executable, "-m", "occpipe", "clean", "in", "out"]
    env = {**os.environ, "RAY_ADDRESS": address}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 5, done.stderr
    assert address in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(not can_make_namespaces(), reason="network namespaces are not allowed here")
def test_a_cluster_that_wants_another_token_ends_it_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "1.png")
    command = ["/bin/sh", "-c", 'ip link set lo up && exec "$0" -c "$1"', sys.executable, STRANGER]
    command = [str(shutil.which("unshare")), "--map-root-user", "--net", *command]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    told, code = done.stdout.split()
    assert code == "5", done.stderr
    assert f"the Ray cluster at {told} does not serve this driver: RPC error: InvalidAuthToken" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
