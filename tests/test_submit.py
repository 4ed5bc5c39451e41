"""The README's `ray job submit`, against a real head node on loopback with token authentication."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.make_demo import scenes
from tests.scenes import encoded
from tests.test_pipeline import rows_of, s3  # noqa: F401 - a fixture
from tests.test_readme import ROOT, bash, blocks


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def head(s3: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:  # noqa: F811 - the fixture
    """The address of the dashboard of a one-node cluster; the workers inherit the S3 server's address."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    binaries = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    port, dashboard = free_port(), free_port()
    folder = tempfile.mkdtemp(prefix="ray")  # short: sockets below it may have 107 characters
    command = [str(binaries / "ray"), "start", "--head", "--block", "--num-cpus=4", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    # Its agent must not meet that of the Ray of the other tests on the default port, or it takes no jobs.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
    command += ["--object-store-memory=300000000", f"--temp-dir={folder}", "--include-dashboard=true"]
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", dashboard)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        started = psutil.Process(node.pid)
        for process in (*started.children(recursive=True), started):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_job_publishes(head: str, s3: Path) -> None:  # noqa: F811 - the fixture
    bucket = s3 / "my-bucket"
    (bucket / "photos").mkdir(parents=True)
    (bucket / "photos" / "palace.jpg").write_bytes(encoded(dict(scenes())["cat_at_the_palace"]))
    (script,) = [block for block in blocks("bash") if "ray job submit" in block]
    for _ in range(30):  # the dashboard answers some seconds before its node can take a job
        try:
            bash(script, ROOT, RAY_DASHBOARD=head)
            break
        except AssertionError as error:
            if "No available agent" not in str(error):
                raise
            time.sleep(2)
    assert rows_of("s3://my-bucket/out")["palace.jpg"]["status"] in ("cleaned", "unchanged")
