"""A part of the fault table on few images; `make chaos` runs all of it on 600."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.test_isolation import can_make_namespaces


@pytest.mark.skipif(not can_make_namespaces(), reason="network namespaces are not allowed here")
def test_no_image_is_lost_or_doubled_where_processes_die() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--images", "60", "--storage", "disk"]
    command += ["--only", "in the middle of a part", "--only", "kills its process", "--only", "of an apply"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count(" yes ") == 3
    assert done.stdout.endswith("0 faults were not survived\n")
