"""A Ray of our own on a machine with a network: nothing answers another interface without the run's token."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ADDRESS = "10.9.8.7"
RUN = """
import os, subprocess, sys
import psutil, ray
from occpipe.pipeline.ray.connection import ray_session
from occpipe.core.config import RayRuntime

if os.environ["OURS"] == "yes":
    session = ray_session(RayRuntime(object_store_mb=128))
else:
    session = ray.init("local", num_cpus=1, object_store_memory=10**8, include_dashboard=False)
with session:
    assert ray.get(ray.remote(lambda: 1).remote()) == 1, "those who have the token are served"
    me = psutil.Process()
    ports = {
        str(c.laddr.port)
        for process in (me, *me.children(recursive=True))
        for c in process.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    }
    stranger = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    subprocess.run([sys.executable, "-c", os.environ["PROBE"], *sorted(ports)], env=stranger, check=True)
"""
PROBE = f"""
import http.client, sys, urllib.request
import grpc

METHODS = (
    "NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVKeys", "JobInfoGcsService/GetAllJobInfo",
    "NodeManagerService/GetNodeStats", "CoreWorkerService/GetCoreWorkerStats", "ObjectManagerService/Pull",
    "ReporterService/GetTraceback",
)
for port in sys.argv[1:]:
    channel = grpc.insecure_channel(f"{ADDRESS}:{{port}}")
    for method in METHODS:
        try:
            channel.unary_unary(f"/ray.rpc.{{method}}")(b"", timeout=2)
            print("ANSWERED", port, method)
        except grpc.RpcError as error:
            print(error.code().name, port, method)
    try:
        urllib.request.urlopen(f"http://{ADDRESS}:{{port}}/", timeout=2)
        print("ANSWERED", port, "http")
    except (OSError, http.client.HTTPException) as error:
        print(type(error).__name__, port, "http")
"""


def probe(ours: str, auth: str) -> list[str]:
    """What a stranger on the network gets from each port, one line each, of our session or of Ray's own default."""
    setup = f"ip link set lo up && ip addr add {ADDRESS}/24 dev lo && ip route add default dev lo src {ADDRESS}"
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", f'{setup} && exec "$0" -c "$1"', sys.executable, RUN]
    environment = {**os.environ, "PROBE": PROBE, "PYTHONPATH": str(Path.cwd()), "OURS": ours}
    environment |= {"RAY_AUTH_MODE": auth} if auth else {}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def can_make_namespaces() -> bool:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run(["unshare", "--map-root-user", "--net", "true"], check=False).returncode == 0


@pytest.mark.skipif(not can_make_namespaces(), reason="network namespaces are not allowed here")
@pytest.mark.parametrize(
    ("ours", "auth", "answers"),
    [
        pytest.param("yes", "", False, id="ours"),
        pytest.param("yes", "disabled", False, id="ours, on loopback alone"),
        pytest.param("no", "disabled", True, id="Ray's, so the probe can see an answer"),
    ],
)
def test_a_stranger_on_the_network_gets_no_answer(ours: str, auth: str, answers: bool) -> None:
    lines = probe(ours, auth)
    assert lines
    assert any(line.startswith("ANSWERED") for line in lines) is answers, lines
