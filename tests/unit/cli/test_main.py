"""The command as a user calls it: exit codes, one-line errors, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image as Pil

from occpipe import __version__
from occpipe.core.config import Config
from tests.helpers.scenes import encoded, gradient, photo


def occpipe(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "occpipe", *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_version_and_help() -> None:
    assert occpipe("--version").stdout.strip() == __version__
    shown = occpipe("clean", "--help")
    assert shown.returncode == 0
    assert "INPUT" in shown.stdout


def test_config_prints_every_key() -> None:
    assert Config.model_validate(yaml.safe_load(occpipe("config", "local").stdout)) == Config()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("clean", "in", "out", "--config", "nowhere"), 2, "no config nowhere; by name: gpu, local, paper2019"),
        (("clean", "pyproject.toml", "out"), 3, "neither an image (.jpg"),
        (("clean", "configs", "out"), 3, "configs: no image there (.jpg"),
        (("preview", "configs"), 3, "no image there"),
        (("preview", "s3://bucket/1.jpg"), 2, "a preview is of local files"),
        (("preview", ""), 2, "IMAGE is empty"),
        (("clean", "in", "out", "-s", "policy.protect=[persn]"), 2, "no class 'persn', did you mean person?"),
        (("models", "verify", "telea"), 4, "telea has no weights"),
        (("explain", "cat", "--context", "sea=0.1"), 2, "nothing in --context was seen surely enough"),
        (("explain", "cat", "--context", "sea", "-c", "paper2019"), 2, "only the default relations"),
        (("evaluate", "segmenter", "configs"), 2, "configs has no label_space.json"),
        (("clean", "in", "out", "-s", "policy.cutt=1"), 2, "did you mean policy.cut?"),
        (("clean", "no/such/folder", "out"), 3, "no such file or folder"),
        (("clean", "", "out"), 2, "INPUT is empty"),
        (("clean", "docs", ""), 2, "OUTPUT is empty"),
        (("clean", "docs", "S3:/bucket/out"), 2, "did you mean s3://bucket/out"),
        (("clean", "docs", "s3://"), 2, "names no bucket"),
        (("clean", "docs", "out", "--limit", "99999999999999999999"), 2, "--limit takes a number of images from 1 to"),
        (("clean", "xyz://bucket/in", "out"), 3, "xyz"),
        (("clean", ".", "out", "-s", "inpainter.model=big-lama"), 4, "occpipe models fetch big-lama"),
        (("clean", ".", "out", "-s", "segmenter.model=mask2former-swin-l"), 4, "weights.accept_licence=[CC-BY-NC-4.0]"),
        (("clean", ".", "out", "-s", "segmenter.model=unknown"), 4, "known: starter, eomt-l-640"),
        (("models", "verify", "unknown"), 4, "no weights 'unknown'"),
        (("report", "nowhere", "nowhere"), 3, "nothing is published there"),
        (("apply", "nowhere", "out", "--cut", "0.3"), 3, "nothing is published there"),
        (("review", "nowhere", "--page", "none.html"), 3, "nothing is published there"),
        (("review", "nowhere", "--verdicts", "none.csv"), 3, "nothing is published there"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    done = occpipe(*arguments, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_output_without_permission(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "file").write_text("a file where a folder should be")
    done = occpipe("clean", tmp_path / "in", tmp_path / "file" / "out")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_previews_never_overwrite(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(encoded(gradient(), "PNG"))
    done = occpipe("preview", tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", "--out", tmp_path / "a")
    assert done.returncode == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["x-2.preview.png", "x.png", "x.preview.png"]
    assert (tmp_path / "a" / "x.png").read_bytes() == encoded(gradient(), "PNG")


def test_preview_draws_one_png_an_image(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(encoded(photo("chelsea")))
    (tmp_path / "wide.png").write_bytes(encoded(gradient(), "PNG"))
    (tmp_path / "bad.jpg").write_bytes(b"no")
    images = [tmp_path / "cat.jpg", tmp_path / "bad.jpg", tmp_path / "wide.png"]
    done = occpipe("preview", *images, "--out", tmp_path / "out")
    assert done.returncode == 1, "one of them could not be read"
    assert "bad.jpg: not one of" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cat.preview.png", "wide.preview.png"]
    with Pil.open(tmp_path / "out" / "cat.preview.png") as drawn:
        assert min(drawn.size) > 400


def test_a_preview_as_a_page(tmp_path: Path) -> None:
    (tmp_path / "<b>cat.jpg").write_bytes(encoded(photo("chelsea")))
    assert occpipe("preview", tmp_path / "<b>cat.jpg", "--out", tmp_path, "--format", "html").returncode == 0
    page = (tmp_path / "<b>cat.preview.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert '"label":"cat"' in page


def test_models_list_names_licences() -> None:
    shown = occpipe("models", "list", COLUMNS="200").stdout
    assert "big-lama" in shown
    assert "CC-BY-NC-4.0" in shown


def test_models_verify_the_shipped_ones() -> None:
    shown = occpipe("models", "verify", "starter").stdout
    assert shown.count("sha256 ") == 3
