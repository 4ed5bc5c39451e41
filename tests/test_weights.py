from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from occpipe import weights
from occpipe.config import Weights, load_config
from occpipe.errors import WeightsError
from occpipe.models import identities
from occpipe.weights import Weight, find, locate, registry

BYTES = b"the weights"


@pytest.fixture
def entry() -> Weight:
    return Weight(
        name="tiny",
        kind="inpainter",
        contract="big-lama",
        licence="MIT",
        file="https://example.invalid/tiny.pt",
        md5=hashlib.md5(BYTES, usedforsecurity=False).hexdigest(),
    )


def test_every_entry_says_where_from_and_under_what() -> None:
    for weight in registry().values():
        assert weight.licence
        assert sum(source is not None for source in (weight.shipped, weight.file, weight.hub)) == 1
        assert weight.file is None or weight.md5 or weight.sha256_prefix, "a file has a checksum"
        assert weight.kind in ("segmenter", "relations", "inpainter")


def test_shipped_weights_are_small_and_have_a_card() -> None:
    for weight in registry().values():
        if weight.shipped:
            path = locate(weight, Weights())
            assert path.stat().st_size <= 12_000_000
            assert path.with_suffix(".md").exists()


def test_a_verified_file_is_found(entry: Weight, tmp_path: Path) -> None:
    (tmp_path / "tiny.pt").write_bytes(BYTES)
    path = locate(entry, Weights(dir=str(tmp_path)))
    assert weights.identity(entry, path)["sha256"] == hashlib.sha256(BYTES).hexdigest()


def test_a_damaged_file_is_refused(entry: Weight, tmp_path: Path) -> None:
    (tmp_path / "tiny.pt").write_bytes(BYTES[:-1])
    with pytest.raises(WeightsError, match="is not tiny: its md5 is"):
        locate(entry, Weights(dir=str(tmp_path)))


def test_a_missing_file_names_the_command(entry: Weight, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="occpipe models fetch tiny"):
        locate(entry, Weights(dir=str(tmp_path)))


def test_weights_come_from_a_uri_once(entry: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from occpipe.storage import open_store

    uri = f"memory://{tmp_path.name}"
    open_store(uri).write("tiny.pt", BYTES)
    path = locate(entry, Weights(dir=uri))
    assert path.read_bytes() == BYTES
    assert path.is_relative_to(tmp_path / "cache")
    open_store(uri).delete("tiny.pt")
    assert locate(entry, Weights(dir=uri)) == path


def test_a_hub_model_comes_from_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from occpipe.storage import open_store

    uri = f"memory://{tmp_path.name}"
    for name in ("config.json", "model.safetensors"):
        open_store(uri).write(f"eomt-l-640/{name}", name.encode())
    path = locate(registry()["eomt-l-640"], Weights(dir=uri))
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_licence_must_be_accepted(tmp_path: Path) -> None:
    weight = find("mask2former-swin-l", "segmenter")
    with pytest.raises(WeightsError, match=r"CC-BY-NC-4\.0, which forbids commercial use"):
        locate(weight, Weights(dir=str(tmp_path)))
    with pytest.raises(WeightsError, match="models fetch"):
        locate(weight, Weights(dir=str(tmp_path), accept_licence=("CC-BY-NC-4.0",)))


def test_kinds_are_not_mixed_up() -> None:
    with pytest.raises(WeightsError, match="known: big-lama, migan-512"):
        find("eomt-l-640", "inpainter")


def test_fetch_downloads_and_verifies(entry: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    source = tmp_path / "server" / "tiny.pt"
    source.parent.mkdir()
    source.write_bytes(BYTES)
    entry = dataclasses.replace(entry, file=f"file://{source}")
    assert weights.fetch(entry, Weights(dir=str(tmp_path / "here"))).read_bytes() == BYTES
    source.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="its md5 is"):
        weights.fetch(entry, Weights(dir=str(tmp_path / "there")))


def test_a_failed_download_is_one_line(entry: Weight, tmp_path: Path) -> None:
    import dataclasses

    entry = dataclasses.replace(entry, file=f"file://{tmp_path}/nowhere.pt")
    with pytest.raises(WeightsError, match="could not be downloaded"):
        weights.fetch(entry, Weights(dir=str(tmp_path / "here")))


def test_identities_are_written_with_the_results() -> None:
    models = identities(load_config())
    assert [model["name"] for model in models] == ["starter-segmenter", "starter-relations"]
    assert all(model["sha256"] and model["licence"] for model in models)
