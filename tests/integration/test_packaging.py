"""What a plain `pip install` brings: built as pip builds it, and used from outside the checkout."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_configs_are_found_by_name(installed: Path) -> None:
    script = "import occpipe.core.config_file as c; "
    script += "print(c.__file__, c.config_names(), c.load_config('gpu').segmenter.model)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=installed, check=True, capture_output=True, text=True, timeout=60
    )
    assert str(installed) in done.stdout
    assert "['gpu', 'local', 'paper2019'] eomt-l-640" in done.stdout


def test_weights_and_tables_come_along(installed: Path) -> None:
    for folder in ("models/assets", "core", "analysis", "analysis/pages/static"):
        there = {path.name for path in (installed / "occpipe" / folder).iterdir()}
        here = {path.name for path in (ROOT / "occpipe" / folder).iterdir()}
        assert here - {"__pycache__"} <= there
    assert not list(installed.glob("tests"))


def test_no_tracked_file_is_too_large() -> None:
    for path in (ROOT / "occpipe" / "models" / "assets").iterdir():
        assert path.stat().st_size <= 12_000_000


def test_cards_and_docs_have_the_checksum_and_cut_of_the_shipped_files() -> None:
    from occpipe.models.relations.vectors import read_asset

    assets = ROOT / "occpipe" / "models" / "assets"
    _, description = read_asset()
    cut = f"{description['default_cut']:.3f}"
    card = (assets / "starter-relations.md").read_text()
    assert hashlib.sha256((assets / "starter-relations.safetensors").read_bytes()).hexdigest()[:12] in card
    assert cut in card
    assert cut in (ROOT / "docs" / "clean.md").read_text()
