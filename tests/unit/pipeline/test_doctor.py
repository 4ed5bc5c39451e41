"""What `occpipe doctor` looks at, what it says, and that it leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from PIL import Image

from occpipe.core.config_file import load_config
from occpipe.dataset.lock import OutputLock
from occpipe.io.storage import open_store
from occpipe.pipeline.doctor import Check, examine
from occpipe.pipeline.ray import checks as ray_checks
from tests.helpers.stores import CREDENTIALS, make_bucket, moto_server

CHECKS = ["weights", "input", "output", "Ray", "disk of Ray", "/dev/shm", "GPU", "open files"]  # noqa: S108


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "1.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_checks, "ANSWER_S", 0.5)
    return tmp_path


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    with moto_server() as url:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        yield make_bucket(tmp_path.name)


def looked_at(
    input_uri: str = "in", output_uri: str = "out", *overrides: str, config: str = "local"
) -> dict[str, Check]:
    return {check.name: check for check in examine(load_config(config, overrides), input_uri, output_uri)}


def test_a_machine_on_which_a_run_would_begin(folder: Path) -> None:
    checks = looked_at()
    assert [*checks] == CHECKS
    assert not any(check.error for check in checks.values())
    assert checks["input"].result == f"a folder or prefix below {folder}/in"
    assert [path.name for path in folder.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("input_uri", "output_uri", "override", "name", "found", "code"),
    [
        ("nowhere", "out", "shard.images=1", "input", "no such file or folder", 3),
        ("s3:/bucket", "out", "shard.images=1", "input", "did you mean s3://bucket", 2),
        ("in", "in/out", "shard.images=1", "output", "lies inside the input", 3),
        ("in", "/proc/out", "shard.images=1", "output", "cannot be written", 3),
        ("in", "out", "inpainter.model=big-lama", "weights", "big-lama is not at", 4),
        ("in", "out", "ray.address=127.0.0.1:1", "Ray", "no Ray cluster answers at 127.0.0.1:1", 5),
        ("in", "out", "segmenter.device=cuda", "GPU", "torch finds none", 2),
    ],
)
def test_each_fault_has_its_line_and_a_way_out(
    folder: Path,
    input_uri: str,
    output_uri: str,
    override: str,
    name: str,
    found: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if output_uri.startswith("/proc"):
        access = os.access
        monkeypatch.setattr("os.access", lambda path, mode: str(path) != "/proc" and access(path, mode))
    checks = looked_at(input_uri, output_uri, override)
    failed = [check for check in checks.values() if check.error]
    assert [check.name for check in failed] == [name]
    assert found in failed[0].result
    assert failed[0].advice
    assert failed[0].error is not None
    assert failed[0].error.exit_code == code
    assert {"weights", "input", "output", "GPU", "open files"} <= checks.keys()


def test_buckets_are_tried_and_left_as_they_were(folder: Path, s3: str) -> None:
    open_store(f"{s3}/in").write("1.jpg", b"1")
    checks = looked_at(f"{s3}/in", f"{s3}/out")
    assert checks["output"].result == f"{s3}/out can be written, read and deleted"
    assert checks["credentials, input"].result.startswith("from env, for http://127.0.0.1:")
    assert [key["Key"] for key in boto3.client("s3").list_objects_v2(Bucket=s3[5:])["Contents"]] == ["in/1.jpg"]
    checks = looked_at(f"{s3}/in", "s3://no-such-bucket/out")
    assert checks["output"].error is not None
    with OutputLock(open_store(f"{s3}/out")):
        assert "is being written by another run" in looked_at(f"{s3}/in", f"{s3}/out")["output"].result
    anonymous = looked_at(f"{s3}/in", "out", "storage.input.anonymous=true")
    assert anonymous["credentials, input"].result == "none: anonymous"


def test_the_command_prints_a_table_and_ends_as_the_run_would(folder: Path) -> None:
    command = [sys.executable, "-m", "occpipe", "doctor", "in", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in CHECKS)
    done = subprocess.run([*command[:-2], "gone", "out"], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, "failed" in done.stdout) == (3, True)
