"""Large objects are written piece by piece as a whole or not at all, and read by ranges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from occpipe.io.storage import SourceChangedError, Store, open_store
from occpipe.io.storage.s3_upload import PART
from tests.helpers.memory import MemoryStore
from tests.helpers.stores import CREDENTIALS, make_bucket, moto_server


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(params=["local", "memory", "dict", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    match request.param:
        case "local":
            return open_store(str(tmp_path / "root"))
        case "memory":
            return open_store(f"memory://{tmp_path.name}")
        case "dict":
            return MemoryStore()
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": request.getfixturevalue("endpoint")}.items():
        monkeypatch.setenv(name, value)
    return open_store(f"{make_bucket(tmp_path.name)}/prefix")


@pytest.mark.parametrize("size", [0, 10, PART, 2 * PART + 7], ids=["none", "few", "a part", "two parts and more"])
def test_what_is_written_in_pieces_is_one_object(store: Store, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    store.write("a/x", b"before")
    with store.writer("a/x") as writer:
        for start in range(0, size, 5_000_000):
            writer.write(memoryview(data)[start : start + 5_000_000])
        assert store.read("a/x") == b"before"
    assert store.read("a/x") == data
    assert [entry.key for entry in store.walk()] == ["a/x"]


@pytest.mark.parametrize("size", [10, 2 * PART])
def test_what_breaks_off_leaves_what_was_there(store: Store, size: int) -> None:
    store.write("x", b"before")

    def write() -> None:
        with store.writer("x") as writer:
            writer.write(bytes(size))
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        write()
    assert store.read("x") == b"before"
    assert [entry.key for entry in store.walk()] == ["x"]


def test_a_range_of_an_object_that_is_still_the_same(store: Store) -> None:
    store.write("x", b"0123456789")
    entry = store.find("x")
    assert entry is not None
    assert store.read_range("x", entry.etag, 3, 6) == b"345"
    assert store.read_range("x", "", 8, 100) == b"89"
    store.write("x", b"another one")
    with pytest.raises(SourceChangedError):
        store.read_range("x", entry.etag, 3, 6)
    with pytest.raises(FileNotFoundError):
        store.read_range("y", "", 0, 1)


@pytest.mark.parametrize("size", [10, 2 * PART + 7])
def test_an_object_is_copied_between_stores_of_two_kinds(store: Store, tmp_path: Path, size: int) -> None:
    source = open_store(str(tmp_path / "elsewhere"))
    source.write("x", bytes(size))
    entry = source.find("x")
    assert entry is not None
    store.copy(source, "x", "a/y", entry.etag, size)
    assert store.read("a/y") == bytes(size)
    with pytest.raises(SourceChangedError):
        store.copy(source, "x", "a/z", "another tag", size)
    assert store.find("a/z") is None
