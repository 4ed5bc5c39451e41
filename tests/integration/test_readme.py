"""Every command in the README is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import occpipe
from jobs.make_demo import scenes
from occpipe.cli.main import app
from tests.helpers.containers import tar_of
from tests.helpers.scenes import encoded
from tests.integration.test_pipeline import s3  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def bash(script: str, folder: Path, **environment: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **environment}
    command = ["bash", "-ec", script]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "palace.jpg").write_bytes(encoded(dict(scenes())["cat_at_the_palace"]))
    return tmp_path


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = "".join(blocks("console")).split()
    assert commands[:3] == ["pip", "install", "."]
    assert [target for target in commands[4::2] if f"\n{target}:" not in makefile] == []


def test_the_table_of_commands_is_complete() -> None:
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`([\w-]+)`", row)}
    assert named == set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("script", [b for b in blocks("bash") if "s3://" not in b])
def test_local_commands(script: str, folder: Path) -> None:
    bash(script, folder)
    assert list((folder / "cleaned" / "metadata").glob("*.parquet"))
    assert [path.name for path in (folder / "previews").iterdir()] == ["palace.preview.png"]
    assert "palace.jpg" in (folder / "report.html").read_text(encoding="utf-8")


def test_s3_commands(folder: Path, s3: Path) -> None:  # noqa: F811 - the fixture
    bucket = s3 / "my-bucket"
    bucket.mkdir()
    (folder / "photos").rename(bucket / "photos")
    (bucket / "tars").mkdir()
    (bucket / "tars" / "00007.tar").write_bytes(tar_of([("0.jpg", (bucket / "photos" / "palace.jpg").read_bytes())]))
    (script,) = [b for b in blocks("bash") if "s3://" in b and "RAY_DASHBOARD" not in b]
    bash(script, folder)
    assert (bucket / "cleaned" / "images" / "palace.jpg").exists()
    assert (bucket / "cleaned-tars" / "images" / "00007.tar").exists()


def test_the_python_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = blocks("python")
    monkeypatch.chdir(folder)
    (folder / "photos" / "palace.jpg").rename("photo.jpg")
    names: dict[str, object] = {}
    exec(script, names)  # noqa: S102 - our own README
    assert names["occpipe"] is occpipe
    assert names["result"].objects  # type: ignore[attr-defined]
