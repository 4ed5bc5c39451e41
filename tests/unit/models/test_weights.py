from __future__ import annotations

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest

from occpipe.core.config import Weights
from occpipe.core.config_file import load_config
from occpipe.core.errors import WeightsError, first_line
from occpipe.models import weights
from occpipe.models.loading import identities
from occpipe.models.weights import ModelEntry, locate, registry

BYTES = b"the weights"


@pytest.fixture
def entry() -> ModelEntry:
    return ModelEntry(
        name="tiny",
        kind="inpainter",
        loader="tests.toy:Toy",
        licence="MIT",
        file="https://example.invalid/tiny.pt",
        md5=hashlib.md5(BYTES, usedforsecurity=False).hexdigest(),
    )


def test_every_entry_says_where_from_and_under_what() -> None:
    for weight in registry().values():
        assert weight.licence
        assert sum(source is not None for source in (weight.shipped, weight.file, weight.hub)) == weight.has_weights
        assert weight.file is None or weight.md5 or weight.sha256_prefix, "a file has a checksum"
        assert weight.kind in ("segmenter", "relations", "inpainter", "prompted")


def test_shipped_weights_are_small_and_have_a_card() -> None:
    for weight in registry().values():
        if weight.shipped:
            path = locate(weight, Weights())
            assert path.stat().st_size <= 12_000_000
            assert path.with_suffix(".md").exists()


def test_a_verified_file_is_found(entry: ModelEntry, tmp_path: Path) -> None:
    (tmp_path / "tiny.pt").write_bytes(BYTES)
    path = locate(entry, Weights(dir=str(tmp_path)))
    assert weights.identity(entry, path)["sha256"] == hashlib.sha256(BYTES).hexdigest()


def test_a_damaged_file_is_refused(entry: ModelEntry, tmp_path: Path) -> None:
    (tmp_path / "tiny.pt").write_bytes(BYTES[:-1])
    with pytest.raises(WeightsError, match="is not tiny: its md5 is"):
        locate(entry, Weights(dir=str(tmp_path)))


def test_a_missing_file_names_the_command(entry: ModelEntry, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="occpipe models fetch tiny"):
        locate(entry, Weights(dir=str(tmp_path)))


def test_weights_come_from_a_uri_once(entry: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from occpipe.io.storage import open_store

    uri = f"memory://{tmp_path.name}"
    open_store(uri).write("tiny.pt", BYTES)
    path = locate(entry, Weights(dir=uri))
    assert path.read_bytes() == BYTES
    assert path.is_relative_to(tmp_path / "cache")
    open_store(uri).delete("tiny.pt")
    assert locate(entry, Weights(dir=uri)) == path


class _Counting(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, slowly, so that all ask before the first one has it; counts what is asked for."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        time.sleep(0.5)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


_ASK = """
import sys
from occpipe.core.config import Weights
from occpipe.models.weights import ModelEntry, locate

entry = ModelEntry(name="tiny", kind="inpainter", loader="tests.toy:Toy", licence="MIT", file="https://example.invalid/tiny.pt")
print(locate(entry, Weights(dir=sys.argv[1])).read_bytes() == b"the weights")
"""


def test_several_actors_of_a_node_copy_a_weight_once(tmp_path: Path) -> None:
    """Two nodes (their caches) with three processes each, which ask a real server at the same moment."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "tiny.pt").write_bytes(BYTES)
    handler = functools.partial(_Counting, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        asking = [
            subprocess.Popen(
                [sys.executable, "-c", _ASK, address],
                env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / node)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for node in ("one", "two")
            for _ in range(3)
        ]
        said = [process.communicate(timeout=60)[0] for process in asking]
        server.shutdown()
    assert said == ["True\n"] * 6
    assert _Counting.asked["/tiny.pt"] == 2


def test_a_hub_model_comes_from_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from occpipe.io.storage import open_store

    uri = f"memory://{tmp_path.name}"
    for name in ("config.json", "model.safetensors"):
        open_store(uri).write(f"eomt-l-640/{name}", name.encode())
    path = locate(registry()["eomt-l-640"], Weights(dir=uri))
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_licence_must_be_accepted(tmp_path: Path) -> None:
    weight = registry()["mask2former-swin-l"]
    with pytest.raises(WeightsError, match=r"CC-BY-NC-4\.0, which forbids commercial use"):
        locate(weight, Weights(dir=str(tmp_path)))
    with pytest.raises(WeightsError, match="models fetch"):
        locate(weight, Weights(dir=str(tmp_path), accept_licence=("CC-BY-NC-4.0",)))


def test_kinds_are_not_mixed_up() -> None:
    with pytest.raises(WeightsError, match="known: starter, big-lama, migan-512, telea, navier-stokes, pypatchmatch"):
        identities(load_config(overrides=["inpainter.model=eomt-l-640"]))


def test_fetch_downloads_and_verifies(entry: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    source = tmp_path / "server" / "tiny.pt"
    source.parent.mkdir()
    source.write_bytes(BYTES)
    entry = dataclasses.replace(entry, file=f"file://{source}")
    assert weights.fetch(entry, Weights(dir=str(tmp_path / "here"))).read_bytes() == BYTES
    source.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="its md5 is"):
        weights.fetch(entry, Weights(dir=str(tmp_path / "there")))


def test_a_failed_download_is_one_line(entry: ModelEntry, tmp_path: Path) -> None:
    import dataclasses

    entry = dataclasses.replace(entry, file=f"file://{tmp_path}/nowhere.pt")
    with pytest.raises(WeightsError, match="could not be downloaded"):
        weights.fetch(entry, Weights(dir=str(tmp_path / "here")))


def test_a_refused_download_leaves_nothing(entry: ModelEntry, tmp_path: Path) -> None:
    import dataclasses

    source = tmp_path / "tiny.pt"
    source.write_bytes(b"something else")
    entry = dataclasses.replace(entry, file=f"file://{source}")
    for _ in range(2):
        with pytest.raises(WeightsError, match=r"what came from file://.* is not tiny: its md5 is"):
            weights.fetch(entry, Weights(dir=str(tmp_path / "here")))
        assert list((tmp_path / "here").iterdir()) == []


def test_consent_comes_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_download_hub", lambda hub, path: pytest.fail("downloaded without consent"))
    with pytest.raises(WeightsError, match="forbids commercial use"):
        weights.fetch(registry()["mask2former-swin-l"], Weights(dir=str(tmp_path)))


def write_parts(folder: Path, names: tuple[str, ...] = ("config.json", "model.safetensors")) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)


def test_an_interrupted_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken for whole before: a folder with some of its files, in its final place."""
    eomt = registry()["eomt-l-640"]

    def stops(hub: str, path: Path) -> None:
        write_parts(path, ("config.json",))
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "_download_hub", stops)
    with pytest.raises(KeyboardInterrupt):
        weights.fetch(eomt, Weights(dir=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(weights, "_download_hub", lambda hub, path: write_parts(path))
    assert sorted(file.name for file in weights.fetch(eomt, Weights(dir=str(tmp_path))).iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_an_interrupted_copy_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from occpipe.io.storage.local import LocalStore

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "store").mkdir()
    write_parts(tmp_path / "store" / "eomt-l-640")
    settings = Weights(dir=f"file://{tmp_path}/store")
    read = LocalStore.read

    def stops(store: LocalStore, key: str, limit: int | None = None) -> bytes:
        if key.endswith("model.safetensors"):
            raise ConnectionResetError("reset by peer")
        return read(store, key, limit)

    monkeypatch.setattr(LocalStore, "read", stops)
    with pytest.raises(WeightsError, match="cannot be read: reset by peer"):
        locate(registry()["eomt-l-640"], settings)
    assert list((tmp_path / "cache" / "occpipe" / "weights").iterdir()) == []
    monkeypatch.setattr(LocalStore, "read", read)
    assert len(list(locate(registry()["eomt-l-640"], settings).iterdir())) == 2


def test_the_second_of_two_takes_what_the_first_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eomt = registry()["eomt-l-640"]
    place = tmp_path / "eomt-l-640"

    def overtaken(hub: str, path: Path) -> None:
        write_parts(path)
        write_parts(place)
        (place / "model.safetensors").write_text("of the first")

    monkeypatch.setattr(weights, "_download_hub", overtaken)
    assert weights.fetch(eomt, Weights(dir=str(tmp_path))) == place
    assert (place / "model.safetensors").read_text() == "of the first"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    ("index", "missing"),
    [(None, "model.safetensors"), ('{"weight_map": {"a": "model-1.safetensors"}}', "model-1.safetensors"), ("[]", "")],
)
def test_half_a_folder_is_refused(index: str | None, missing: str, tmp_path: Path) -> None:
    folder = tmp_path / "eomt-l-640"
    write_parts(folder, ("config.json",))
    if index:
        (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match=f"is not the whole of eomt-l-640: .*{missing}"):
        locate(registry()["eomt-l-640"], Weights(dir=str(tmp_path)))
    assert not weights.is_here(registry()["eomt-l-640"], Weights(dir=str(tmp_path)))


@pytest.mark.parametrize("key", ["eomt-l-640/../../escaped", "elsewhere/config.json", "eomt-l-640/a\\b"])
def test_keys_that_leave_the_folder_are_refused(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from occpipe.io.storage import Entry
    from occpipe.io.storage.local import LocalStore

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "store").mkdir()
    monkeypatch.setattr(LocalStore, "walk", lambda store, prefix="": iter([Entry(key, 1, "")]))
    with pytest.raises(WeightsError, match="has a key that is not a file name"):
        locate(registry()["eomt-l-640"], Weights(dir=f"file://{tmp_path}/store"))
    assert not (tmp_path / "cache").exists()


def test_fetch_fills_a_bucket(entry: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from occpipe.io.storage import open_store

    uri = f"memory://{tmp_path.name}"
    (tmp_path / "tiny.pt").write_bytes(BYTES)
    entry = dataclasses.replace(entry, file=f"file://{tmp_path}/tiny.pt")
    monkeypatch.setattr(weights, "_download_hub", lambda hub, path: write_parts(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for weight in (entry, registry()["eomt-l-640"], registry()["starter-relations"]):
        weights.fetch(weight, Weights(dir=uri))
    keys = sorted(found.key for found in open_store(uri).walk())
    assert keys == ["eomt-l-640/config.json", "eomt-l-640/model.safetensors", "tiny.pt"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another node"))
    assert locate(entry, Weights(dir=uri)).read_bytes() == BYTES
    assert len(list(locate(registry()["eomt-l-640"], Weights(dir=uri)).iterdir())) == 2


def test_missing_from_a_bucket_names_the_command(
    entry: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "bucket").mkdir()
    uri = f"file://{tmp_path}/bucket"
    for weight in (entry, registry()["eomt-l-640"]):
        with pytest.raises(WeightsError, match=f"occpipe models fetch {weight.name} --set weights.dir={uri}"):
            locate(weight, Weights(dir=uri))


def test_a_hub_entry_claims_no_checksum() -> None:
    assert not registry()["eomt-l-640"].has_checksum
    assert registry()["big-lama"].has_checksum
    assert "no published checksum" in str(weights.verify.__doc__)


def test_first_line_always_says_something() -> None:
    assert first_line(OSError()) == "OSError"
    assert first_line(ValueError("\n  the first\nthe second")) == "the first"
    assert first_line(KeyError("tokens")) == "KeyError 'tokens'"


def test_identities_are_written_with_the_results() -> None:
    models = identities(load_config())
    assert [model["name"] for model in models] == ["starter-segmenter", "starter-inpainter", "starter-relations"]
    assert all(model["sha256"] and model["licence"] for model in models)
