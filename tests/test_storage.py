from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occpipe.errors import StorageError
from occpipe.storage import Store, TooLargeError, is_safe_key, open_store, split_pattern, with_retries


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield f"http://127.0.0.1:{server._server.server_port}"  # type: ignore[union-attr]  # moto tells it nowhere else
    server.stop()


@pytest.fixture(params=["local", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "root"))
    if request.param == "memory":
        return open_store(f"memory://{tmp_path.name}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_endpoint"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import boto3

    bucket = tmp_path.name.replace("_", "-").lower()
    boto3.client("s3").create_bucket(Bucket=bucket)
    return open_store(f"s3://{bucket}/a prefix")


ODD_KEYS = ["plain.jpg", "a folder/with spaces.jpg", "100%25.jpg", "a..b.jpg", "Zürich/猫 #1?.png", "a+b&c=d.jpg"]


def test_keys_come_back_as_they_went(store: Store) -> None:
    for key in ODD_KEYS:
        store.write(key, key.encode())
    entries = {entry.key: entry.size for entry in store.walk()}
    assert entries == {key: len(key.encode()) for key in ODD_KEYS}
    assert all(store.read(key) == key.encode() for key in ODD_KEYS)
    assert [entry.key for entry in store.walk("a folder")] == ["a folder/with spaces.jpg"]


def test_parts_of_an_object(store: Store) -> None:
    store.write("x", b"0123456789")
    with store.open("x") as file:
        assert file.read(2) == b"01"
        assert file.seek(-3, os.SEEK_END) == 7
        assert file.read() == b"789"
        assert file.read(1) == b""
        file.seek(4)
        file.seek(1, os.SEEK_CUR)
        assert (file.tell(), file.read(2)) == (5, b"56")
    with pytest.raises(FileNotFoundError):
        store.open("none")


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr("occpipe.storage.base.time.sleep", lambda _: None)  # it is asked for three times
    import boto3

    boto3.client("s3").create_bucket(Bucket="replaced")
    store = open_store("s3://replaced")
    store.write("x", b"0123456789")
    with store.open("x") as file:
        assert file.read(2) == b"01"
        store.write("x", b"abcdefghij")
        with pytest.raises(OSError, match="x"):
            file.read(2)


def test_write_replaces_and_changes_the_etag(store: Store) -> None:
    store.write("x", b"one")
    (before,) = store.walk()
    store.write("x", b"other")
    (after,) = store.walk()
    assert store.read("x") == b"other"
    assert before.etag != after.etag


def test_create_takes_a_name_once(store: Store) -> None:
    assert store.create("lock", b"mine")
    assert not store.create("lock", b"yours")
    assert store.read("lock") == b"mine"
    store.delete("lock")
    store.delete("lock")
    assert store.create("lock", b"yours")


def test_read_limits_and_missing(store: Store) -> None:
    store.write("x", b"12345")
    assert store.read("x", 5) == b"12345"
    with pytest.raises(TooLargeError):
        store.read("x", 4)
    with pytest.raises(FileNotFoundError):
        store.read("y")


def test_a_missing_prefix_lists_nothing(store: Store) -> None:
    assert list(store.walk("nowhere")) == []


def test_missing_roots_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file or folder"):
        open_store(str(tmp_path / "nowhere")).check_readable()
    with pytest.raises(StorageError):
        open_store("nosuchscheme://x")


def test_missing_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(StorageError, match="no such bucket"):
        open_store("s3://no-such-bucket-here/x").check_readable()


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="credentials"):
        open_store("s3://bucket").check_readable()


def test_local_walk_does_not_follow_loops(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert [entry.key for entry in open_store(str(tmp_path)).walk()] == ["a/x"]


def test_a_link_to_itself_is_listed_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    (tmp_path / "x.jpg").write_bytes(b"1")
    store = open_store(str(tmp_path))
    assert [(entry.key, entry.size) for entry in store.walk()] == [("self.jpg", None), ("x.jpg", 1)]
    with pytest.raises(OSError, match="self"):
        store.read("self.jpg")


def test_find(store: Store) -> None:
    assert store.find("x") is None
    store.write("x", b"123")
    found = store.find("x")
    assert found is not None
    assert (found.key, found.size) == ("x", 3)
    if not store.uri.startswith("memory"):  # fsspec's memory tells the time of creation in two ways
        assert found.etag == next(store.walk()).etag


def test_what_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    answers: list[object] = [ConnectionResetError("reset"), OSError("busy"), b"data"]

    def call() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert with_retries(call) == b"data"
    answers[:] = [FileNotFoundError("gone"), b"data"]
    with pytest.raises(FileNotFoundError):
        with_retries(call)
    answers[:] = [OSError("1"), OSError("2"), OSError("3"), b"data"]
    with pytest.raises(OSError, match="3"):
        with_retries(call)


@pytest.mark.parametrize("key", ["", "/x", "../x", "a/../b", "a//b", "./a", "a\\b", "C:/x", "a\0b", "a\nb", "x" * 256])
def test_unsafe_keys(key: str) -> None:
    assert not is_safe_key(key)


@given(st.text())
def test_a_safe_key_stays_below_its_root(key: str) -> None:
    if is_safe_key(key):
        root = PurePosixPath("/root/of/output")
        assert PurePosixPath(posixpath.normpath(f"{root}/{key}")).is_relative_to(root)
        assert posixpath.normpath(f"{root}/{key}") == f"{root}/{key}"


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_safe(key: str) -> None:
    assert is_safe_key(key)


@pytest.mark.parametrize(
    ("uri", "split"),
    [
        ("photos", ("photos", None)),
        ("photos/*.jpg", ("photos", "*.jpg")),
        ("*.jpg", (".", "*.jpg")),
        ("/*.jpg", ("/", "*.jpg")),
        ("s3://b/2019/**/*.jpg", ("s3://b/2019", "**/*.jpg")),
    ],
)
def test_split_pattern(uri: str, split: tuple[str, str | None]) -> None:
    assert split_pattern(uri) == split
