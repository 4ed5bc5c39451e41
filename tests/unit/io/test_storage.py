from __future__ import annotations

import errno
import io
import os
import posixpath
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPResponse

from occpipe.core.errors import StorageError
from occpipe.io.storage import (
    Entry,
    SourceChangedError,
    Span,
    Store,
    StoreAwayError,
    TooLargeError,
    is_safe_key,
    open_store,
    split_pattern,
    walk_span,
    with_retries,
)
from occpipe.io.storage.generic import FsspecStore
from occpipe.io.storage.local import LocalStore
from occpipe.io.storage.s3 import S3Store
from tests.helpers.memory import MemoryStore
from tests.helpers.stores import CREDENTIALS, make_bucket, moto_server


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def s3_uri(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    return make_bucket(tmp_path.name)


@pytest.fixture(params=["local", "s3", "memory", "dict"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("occpipe.io.storage.s3_keys.PAGE_KEYS", 5)
    match request.param:
        case "local":
            return open_store(str(tmp_path / "root"))
        case "memory":
            return open_store(f"memory://{tmp_path.name}")
        case "dict":
            return MemoryStore()
    return open_store(f"{request.getfixturevalue('s3_uri')}/a prefix")


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


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.io.storage.base.time.sleep", lambda _: None)  # it is asked for three times
    store = open_store(s3_uri)
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
    if not isinstance(store, MemoryStore):
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


def test_a_root_that_holds_something_is_readable(store: Store) -> None:
    store.write("a/x", b"1")
    store.check_readable()


@pytest.mark.usefixtures("s3_uri")
def test_missing_bucket() -> None:
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
    assert found.etag == next(store.walk()).etag


TREE = [
    *(f"a/{number:03d}.jpg" for number in range(24)),
    *("a-b/x.jpg", "a.jpg", "a/b/c/d.jpg", "a/b0.jpg", "b/Zürich/猫.png", "b/Zürich/😀.png", "b/é.png", "z/z/z.jpg"),
]


@pytest.mark.parametrize("limit", [2, 7, 1000])
def test_a_listing_in_steps_has_every_key_once_and_in_order(store: Store, limit: int) -> None:
    for key in TREE:
        store.write(key, b"1")
    for folder in ("", "a", "b/Zürich", "none"):
        spans, keys = [Span(folder)], list[str]()
        while spans:
            entries, rest = store.list_keys(spans.pop(0), limit)
            assert len(entries) <= limit
            keys += [entry.key for entry in entries]
            spans[:0] = rest
        expected = sorted(key for key in TREE if not folder or key.startswith(f"{folder}/"))
        assert keys == expected
        assert [entry.key for entry in store.walk(folder)] == expected


def leaves(store: Store, span: Span, depth: int) -> list[Span]:
    """What a span is divided into, and those parts, and so on."""
    parts = store.divide(span)
    return parts if depth == 0 else [leaf for part in parts for leaf in leaves(store, part, depth - 1)]


@pytest.mark.parametrize("depth", [0, 1])
def test_a_divided_span_has_every_key_once_and_in_order(store: Store, depth: int) -> None:
    for key in TREE:
        store.write(key, b"1")
    some = store.list_keys(Span(), 9)[1]
    for spans, expected in (([Span()], sorted(TREE)), (some, sorted(TREE)[9:])):
        parts = [part for span in spans for part in leaves(store, span, depth)]
        assert len(parts) > 1
        assert [entry.key for part in parts for entry in walk_span(store, part)] == expected


def test_keys_of_one_level_are_divided(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.io.storage.tree._FOLDER_WEIGHT", 5)
    keys = [f"flat/img-{number:05d}.jpg" for number in range(0, 900, 9)]
    for key in keys:
        store.write(key, b"1")
    parts = store.divide(Span())
    assert len(parts) >= 7
    found = [[entry.key for entry in walk_span(store, part)] for part in parts]
    assert [key for part in found for key in part] == keys
    assert max(map(len, found)) <= 20
    assert store.divide(Span("none")) == []


def test_a_folder_that_cannot_be_listed_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(store, FsspecStore | LocalStore):
        pytest.skip("it has no folders")
    for key in ("a/x.jpg", "b/c/x.jpg", "d/x.jpg"):
        store.write(key, b"1")
    if isinstance(store, FsspecStore):
        known = store.fs.ls

        def ls(path: str, *, detail: bool) -> object:
            if path.endswith("b/c"):
                raise PermissionError("closed")
            return known(path, detail=detail)

        monkeypatch.setattr(store.fs, "ls", ls)
    else:
        scandir = os.scandir

        def scan(path: Path) -> object:
            if str(path).endswith("b/c"):
                raise PermissionError("closed")
            return scandir(path)

        monkeypatch.setattr("occpipe.io.storage.local.os.scandir", scan)
    with pytest.raises(StorageError, match="b/c"):
        list(store.walk())


def test_a_file_or_folder_that_vanishes_is_passed_over(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for key in ("a/x.jpg", "b/x.jpg", "b/y.jpg", "c/x.jpg"):
        store.write(key, b"1")
    spans = store.divide(Span())
    shutil.rmtree(tmp_path / "a")
    entries, rest = store.list_keys(Span("b"), 1)
    (tmp_path / "b" / "y.jpg").unlink()
    assert [entry.key for entry in entries] == ["b/x.jpg"]
    assert [entry.key for span in rest for entry in walk_span(store, span)] == []
    assert [entry.key for span in spans for entry in walk_span(store, span)] == ["b/x.jpg", "c/x.jpg"]


def test_pages_that_are_written_in_another_order_are_read(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(s3_uri)
    for key in ODD_KEYS:
        store.write(key, b"12")
    fast = list(store.walk())
    monkeypatch.setattr("occpipe.io.storage.s3_keys._OBJECT", re.compile("no match"))
    assert list(store.walk()) == fast
    assert [(entry.key, entry.size) for entry in fast] == [(key, 2) for key in sorted(ODD_KEYS)]


def test_marks_of_folders_are_no_objects(s3_uri: str) -> None:
    store = open_store(s3_uri)
    for key in ("a/", "a/x", "b/", "b/c/", "b/d"):
        store.write(key, b"")
    for limit in (1, 2, 9):
        monitor, spans = list[str](), [Span()]
        while spans:
            entries, spans = store.list_keys(spans[0], limit)
            monitor += [entry.key for entry in entries]
        assert monitor == ["a/x", "b/d"]


def test_copy(store: Store, tmp_path: Path, s3_uri: str) -> None:
    for other in (store, open_store(str(tmp_path / "other")), open_store(f"{s3_uri}/other"), MemoryStore()):
        store.write("a/x", b"0123")
        entry = store.find("a/x")
        assert entry is not None
        other.copy(store, "a/x", "images/a x#1", entry.etag)
        other.copy(store, "a/x", "images/any", "")
        assert other.read("images/a x#1") == other.read("images/any") == b"0123"
        time.sleep(0.01)  # a clock of the file system may stand still for 4 ms
        store.write("a/x", b"4567")
        with pytest.raises(SourceChangedError, match="a/x"):
            other.copy(store, "a/x", "images/later", entry.etag)
        assert other.find("images/later") is None
        store.delete("a/x")
        with pytest.raises(FileNotFoundError):
            other.copy(store, "a/x", "images/none", "")


@pytest.mark.parametrize("broken", [(), ("ioctl",), ("ioctl", "copy_file_range")])
def test_local_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...]) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    if "ioctl" in broken:
        monkeypatch.setattr("occpipe.io.storage.local.fcntl.ioctl", fail)
    if "copy_file_range" in broken:
        monkeypatch.setattr("occpipe.io.storage.local.os.copy_file_range", fail)
    source, target = LocalStore(str(tmp_path / "in")), LocalStore(str(tmp_path / "out"))
    data = os.urandom(3_000_000)
    source.write("x", data)
    entry = source.find("x")
    assert entry is not None
    (tmp_path / "in" / "x").chmod(0o700)
    old = os.umask(0o027)
    try:
        target.copy(source, "x", "deep/x", entry.etag)
    finally:
        os.umask(old)
    assert target.read("deep/x") == data
    assert (tmp_path / "out" / "deep" / "x").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (tmp_path / "out" / "deep").iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("code", "status"), [("AccessDenied", 403), ("NotImplemented", 501), ("MethodNotAllowed", 405)]
)
def test_an_object_that_the_store_does_not_copy_is_read_and_written(s3_uri: str, code: str, status: int) -> None:
    store = open_store(s3_uri)
    assert isinstance(store, S3Store)
    store.write("x", b"0123")

    def refuse(**_: object) -> object:
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        return AWSResponse("", status, {}, HTTPResponse(io.BytesIO(body), preload_content=False))

    store.client.meta.events.register("before-send.s3.CopyObject", refuse)
    store.copy(store, "x", "y", (store.find("x") or Entry("", None, "")).etag)
    assert store.read("y") == b"0123"


def tries(*answers: Exception | str) -> Callable[[], str]:
    """A call that raises or returns one after the other."""
    rest = list(answers)

    def call() -> str:
        answer = rest.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


def test_what_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert with_retries(tries(ConnectionResetError("reset"), OSError("busy"), "data")) == "data"
    with pytest.raises(OSError, match="3"):
        with_retries(tries(OSError("1"), OSError("2"), OSError("3"), "data"))


def test_each_retry_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with_retries(tries(ConnectionResetError("reset"), OSError("busy"), "data"))
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("occpipe.io.storage.base", "WARNING")
    ] * 2
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("storage failed (try 1)")
    assert first.endswith(": reset")
    assert second.startswith("storage failed (try 2)")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("it"),
        PermissionError("it"),
        SourceChangedError("it"),
        OSError(errno.ENOSPC, "it"),
        OSError(errno.EDQUOT, "it"),
        OSError(errno.EROFS, "it"),
    ],
)
def test_what_does_not_pass_is_raised_at_once(error: OSError) -> None:
    with pytest.raises(type(error), match="it"):
        with_retries(tries(error, "data"), patience_s=100)


def test_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    assert with_retries(tries(*[OSError("busy")] * 8, "data"), patience_s=600) == "data"
    assert len(pauses) == 8
    assert max(pauses) <= 22.5
    pauses.clear()
    with pytest.raises(OSError, match="busy"):
        with_retries(tries(*[OSError("busy")] * 100), patience_s=60)
    assert 60 <= sum(pauses) <= 82.5
    pauses.clear()
    with pytest.raises(StoreAwayError):
        with_retries(tries(*[StoreAwayError("away")] * 100))
    assert 180 <= sum(pauses) <= 202.5


def test_a_store_without_connection_is_away(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    store = open_store(s3_uri)
    with pytest.raises(StoreAwayError):
        store.read("x")
    with pytest.raises(StorageError):
        store.check_readable()


@pytest.mark.parametrize(
    "key", ["", "/x", "../x", "a/../b", "a//b", "./a", "a\\b", "C:/x", "a\0b", "a\nb", "x" * 256, "\udce9.jpg"]
)
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
