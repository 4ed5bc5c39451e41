"""A real S3 server on loopback, over a folder whose sub-folders are its buckets."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY, SECRET = "AKIDOCCPIPETEST", "5f0f6d1c-secret-of-the-test"


@contextmanager
def s3_server(root: Path) -> Iterator[tuple[str, int]]:
    """rclone's server, with its host and port; it knows the credentials `KEY` and `SECRET`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address: tuple[str, int] = probe.getsockname()
    binary = shutil.which("rclone") or str(Path(sys.executable).parent / "rclone")
    command = [binary, "serve", "s3", "--addr", f"127.0.0.1:{address[1]}", "--auth-key", f"{KEY},{SECRET}", str(root)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(address) == 0:
                    break
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(10)


def s3_environment(address: tuple[str, int]) -> dict[str, str]:
    """What a client of that server finds in its environment."""
    return {
        "AWS_ENDPOINT_URL": f"http://{address[0]}:{address[1]}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
