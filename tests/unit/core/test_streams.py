"""Readers that go away, streams that are closed, and Ctrl-C before anything was begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

SAY = """
import sys
from occpipe.core.streams import messages, open_standard_streams
open_standard_streams()
console = messages()
for number in range(2000):
    console.print(f"line {number}" * 20)
open("made", "w").write("rows")
"""


def run(shell: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command of a shell in which $OCC is occpipe and $SAY a program that writes 2,000 messages."""
    env = {**os.environ, "PY": sys.executable, "SAY": SAY, **env}
    return subprocess.run(
        ["/bin/bash", "-c", shell], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "shell",
    [
        '{ "$PY" -c "$SAY" 2>&1; echo "rc=$?" > rc; } | head -n 1',
        '"$PY" -c "$SAY" 2>&-; echo "rc=$?" > rc',
        '"$PY" -c "$SAY" >&- 2>&-; echo "rc=$?" > rc',
        '"$PY" -c "$SAY" <&- >&- 2>&-; echo "rc=$?" > rc',
        '"$PY" -c "$SAY" 2>/dev/full; echo "rc=$?" > rc',
    ],
)
def test_messages_outlive_their_reader(shell: str, tmp_path: Path) -> None:
    run(shell, tmp_path)
    assert (tmp_path / "rc").read_text() == "rc=0\n"
    assert (tmp_path / "made").read_text() == "rows"


def test_an_error_keeps_its_exit_code_where_nobody_reads_it(tmp_path: Path) -> None:
    done = run('"$PY" -m occpipe clean nowhere out 2>&-; echo "rc=$?"', tmp_path)
    assert done.stdout == "rc=3\n"


def test_a_run_goes_on_where_its_readers_end(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="a run needs Ray")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "1.png")
    command = '"$PY" -m occpipe clean in out --log-json - -s inpainter.model=telea'
    run(f'{{ {command} 2> >(head -c 1 > first); echo "rc=$?" > rc; }} | head -c 1 > log', tmp_path)
    assert (tmp_path / "rc").read_text() == "rc=0\n"
    assert (tmp_path / "log").read_text() == "{"
    assert pq.read_table(tmp_path / "out" / "metadata").column("status").to_pylist() == ["unchanged"]


@pytest.mark.parametrize("wait_s", [0.1, 0.2, 0.4])
def test_ctrl_c_at_once_is_one_line_at_most(wait_s: float, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "occpipe", "config", "local"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:  # our own code has begun
            said.append(line)
            if "import time" in line and "occpipe" in line:
                break
        time.sleep(wait_s)
        process.send_signal(signal.SIGINT)
        said += [line for line in process.stderr if not line.startswith("import time")]
    if process.returncode != 0:  # it was too late for Ctrl-C
        # In its last moments Python has given the signal back to the system, which then ends the process without a word.
        assert process.returncode in {130, -signal.SIGINT}
        assert "Traceback" not in "".join(said)
        assert len([line for line in said if not line.startswith("import time")]) <= 1
