"""Every command in the README is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import occpipe
from jobs.make_demo import scenes
from tests.helpers.published import publish_rows, removed_row
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
    for command in "".join(blocks("console")).split("\n"):
        if command:
            target = command.removeprefix("make ")
            assert f"\n{target}:" in makefile


@pytest.mark.parametrize("script", [b for b in blocks("bash") if "s3://" not in b])
def test_local_commands(script: str, folder: Path) -> None:
    if "audit" in script:  # of what another block has made
        publish_rows(folder / "cleaned", [removed_row(1, {"cat": 0.05}, {"grass": 0.9}, share=0.1)])
    printed = bash(script, folder)
    if "audit" in script:
        assert "coco: 1 images" in printed
    if "models " in script:
        assert "starter-segmenter" in printed
    for name in re.findall(r"occpipe clean photos (\w+)", script):
        assert list((folder / name / "metadata").glob("*.parquet"))


def test_s3_commands(folder: Path, s3: Path) -> None:  # noqa: F811 - the fixture
    bucket = s3 / "my-bucket"
    bucket.mkdir()
    (folder / "photos").rename(bucket / "photos")
    (script,) = [b for b in blocks("bash") if "s3://" in b and "RAY_DASHBOARD" not in b]
    bash(script, folder)
    assert (bucket / "cleaned" / "images" / "palace.jpg").exists()


def test_the_sql(folder: Path) -> None:
    import duckdb

    (query,) = blocks("sql")
    bash("occpipe clean photos cleaned", folder)
    with duckdb.connect() as database:
        rows = database.execute(query.replace("'cleaned/", f"'{folder}/cleaned/")).fetchall()
    assert "cat" in {row[0] for row in rows}


def test_the_python_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = blocks("python")
    monkeypatch.chdir(folder)
    (folder / "photos" / "palace.jpg").rename("photo.jpg")
    names: dict[str, object] = {}
    exec(script, names)  # noqa: S102 - our own README
    assert names["occpipe"] is occpipe
    assert names["result"].objects  # type: ignore[attr-defined]
