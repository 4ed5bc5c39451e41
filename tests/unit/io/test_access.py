"""How a store is reached: what is asked of S3 and of fsspec's drivers, what is refused, and that it travels to workers."""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError, StorageError
from occpipe.io.images import ImageReason
from occpipe.io.storage import (
    Access,
    Address,
    ArchivedError,
    HungError,
    Span,
    Store,
    open_store,
    store_of,
    with_retries,
    within,
)
from occpipe.io.storage.s3 import S3Store
from occpipe.stages.load import read_image
from occpipe.stages.rows import _reason_of
from tests.helpers.stores import CREDENTIALS, make_bucket, moto_server

KMS = Access(kms_key="alias/photos", bucket_owner="123456789012", requester_pays=True)


class _S3(BaseHTTPRequestHandler):
    """Notes what it is asked, and answers as it is told."""

    protocol_version = "HTTP/1.1"
    server: Any

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(size)
        self.server.asked.append((self.command, dict(self.headers)))
        data = b"" if self.command == "PUT" else b"12345"
        status, body = self.server.answers.pop(0) if self.server.answers else self.server.always or (200, data)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"e"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = _answer  # noqa: N815 - names of http.server

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - as its base has it
        pass


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "aws").write_text(
        "[profile archive]\nregion = eu-west-1\naws_access_key_id = A\naws_secret_access_key = B\n"
    )
    settings = {**CREDENTIALS, "AWS_CONFIG_FILE": str(tmp_path / "aws"), "AWS_EC2_METADATA_DISABLED": "true"}
    settings["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"  # else bodies come in chunks
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _S3)
    server.asked, server.answers, server.always = [], [], None
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def error(code: str, more: str = "") -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>".encode()


@pytest.mark.parametrize(
    ("access", "headers"),
    [
        ({}, {"Authorization": "Credential=test/"}),
        ({"anonymous": True}, {"Authorization": None}),
        ({"profile": "archive"}, {"Authorization": "Credential=A/"}),
        ({"region": "ap-south-1"}, {"Authorization": "/ap-south-1/s3/"}),
        ({"requester_pays": True}, {"x-amz-request-payer": "requester"}),
        ({"bucket_owner": "123456789012"}, {"x-amz-expected-bucket-owner": "123456789012"}),
        ({"kms_key": "alias/photos"}, {"x-amz-server-side-encryption": None}),
    ],
)
def test_what_a_read_asks_for(s3: Any, access: dict[str, Any], headers: dict[str, str | None]) -> None:
    store = open_store("s3://bucket/photos", Access(endpoint=s3.url, **access))
    assert store.read("x.jpg") == b"12345"
    ((_, asked),) = s3.asked
    for name, value in headers.items():
        assert (name in asked) is (value is not None)
        assert value is None or value in asked[name]


def test_what_a_write_asks_for(s3: Any) -> None:
    access = Access(endpoint=s3.url, kms_key="alias/photos", bucket_owner="123456789012", requester_pays=True)
    open_store("s3://bucket/out", access).write("x.jpg", b"1")
    ((_, asked),) = s3.asked
    assert asked["x-amz-server-side-encryption"] == "aws:kms"
    assert asked["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/photos"
    assert asked["x-amz-expected-bucket-owner"] == "123456789012"
    assert asked["x-amz-request-payer"] == "requester"


def test_an_archived_object_says_so(s3: Any) -> None:
    s3.answers = [(403, error("InvalidObjectState", "<StorageClass>DEEP_ARCHIVE</StorageClass>"))]
    with pytest.raises(ArchivedError, match=r"x.jpg: archived \(DEEP_ARCHIVE\): restore it"):
        open_store("s3://bucket", Access(endpoint=s3.url)).read("x.jpg")


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"])
def test_credentials_that_do_not_serve_are_not_tried_again(s3: Any, code: str) -> None:
    s3.answers = [(403, error(code))]
    with pytest.raises(PermissionError, match=rf"x\.jpg: no \({code}\)"):
        with_retries(lambda: open_store("s3://bucket", Access(endpoint=s3.url)).read("x.jpg"))
    assert len(s3.asked) == 1


def test_an_endpoint_that_only_redirects_says_so(s3: Any) -> None:
    s3.always = (301, error("PermanentRedirect"))
    with pytest.raises(StorageError, match="only redirects; is it https://"):
        open_store("s3://bucket", Access(endpoint=s3.url)).check_readable()


def test_slow_down_slows_down_and_loses_nothing(s3: Any) -> None:
    store = open_store("s3://bucket", Access(endpoint=s3.url))
    assert isinstance(store, S3Store)
    s3.answers = [(503, error("SlowDown"))] * 3
    store.write("x.jpg", b"1")
    assert [command for command, _ in s3.asked] == ["PUT"] * 4
    other = open_store("s3://another-bucket/out", Access(endpoint=s3.url))
    assert isinstance(other, S3Store)
    assert other.client is store.client  # one token bucket for all threads of the process
    assert store.client.meta.config.retries["mode"] == "adaptive"


def test_input_and_output_may_be_at_two_servers(s3: Any, tmp_path: Path) -> None:
    with moto_server() as url:
        output = open_store(make_bucket_at(url, tmp_path.name), Access(endpoint=url))
        source = open_store("s3://bucket/photos", Access(endpoint=s3.url))
        output.copy(source, "x.jpg", "y.jpg", "e")
        assert output.read("y.jpg") == b"12345"
    assert {command for command, _ in s3.asked} == {"GET", "HEAD"}  # neither server could copy from the other


def make_bucket_at(url: str, name: str) -> str:
    os.environ["AWS_ENDPOINT_URL"] = url
    try:
        return make_bucket(name)
    finally:
        del os.environ["AWS_ENDPOINT_URL"]


def test_a_profile_that_is_none_is_one_line(s3: Any) -> None:
    with pytest.raises(StorageError, match=r"profile.*nobody") as raised:
        open_store("s3://bucket", Access(endpoint=s3.url, profile="nobody")).check_readable()
    assert "\n" not in str(raised.value)


def test_a_bucket_name_that_is_none_is_one_line(s3: Any) -> None:
    with pytest.raises(StorageError, match="Invalid bucket name") as raised:
        open_store("s3://a bucket", Access(endpoint=s3.url)).check_readable()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "access", "options"),
    [
        ("gs://b/x", {"anonymous": True}, {"token": "anon"}),
        ("gs://b/x", {"requester_pays": True}, {"requester_pays": True}),
        ("gs://b/x", {"endpoint": "http://127.0.0.1:1"}, {"endpoint_url": "http://127.0.0.1:1"}),
        ("az://c/x", {"anonymous": True}, {"anon": True}),
        ("az://c/x", {}, {}),
        ("az://c/x", {"profile": "p"}, "storage.*.profile has no effect on az://"),
        ("gs://b/x", {"kms_key": "k"}, "storage.*.kms_key has no effect on gs://"),
        ("memory://x", {"anonymous": True}, "storage.*.anonymous has no effect on memory://"),
    ],
)
def test_what_a_driver_of_fsspec_is_told(
    uri: str, access: dict[str, Any], options: dict[str, Any] | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def url_to_fs(uri: str, **more: Any) -> tuple[MemoryFileSystem, str]:
        told.update(more)
        return MemoryFileSystem(), uri

    monkeypatch.setattr(fsspec, "url_to_fs", url_to_fs)
    if isinstance(options, str):
        with pytest.raises(ConfigError) as raised:
            open_store(uri, Access(**access))
        assert options in str(raised.value)
        return
    open_store(uri, Access(**access))
    assert told == {"use_listings_cache": False, **options}


@pytest.fixture(params=["gs", "az"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of Google or Azure that lies in memory."""

    class Cloud(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
        protocol = (request.param, "memory")
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
            if path.rstrip("/").endswith("/closed"):
                raise PermissionError(path)
            return super().ls(path, detail, **more)

    monkeypatch.setitem(_registry, request.param, Cloud)
    return open_store(f"{request.param}://bucket/photos")


def test_a_cloud_of_another_kind_loses_nothing_where_one_folder_fails(cloud: Store) -> None:
    keys = ["1.jpg", "a/1.jpg", "a/b/2.jpg", "z/3.jpg"]
    for key in keys:
        cloud.write(key, key.encode())
    assert [entry.key for entry in cloud.walk()] == keys
    assert [cloud.read(key) for key in keys] == [key.encode() for key in keys]
    assert cloud.find("a") is None  # a folder is no object
    assert not cloud.create("1.jpg", b"2")
    cloud.write("closed/1.jpg", b"1")
    with pytest.raises((StorageError, PermissionError), match="closed"):
        list(cloud.walk())
    assert [entry.key for entry in cloud.list_keys(Span("a"), 10)[0]] == ["a/1.jpg", "a/b/2.jpg"]


def sent(uri: str) -> Any:
    return pickle.loads(pickle.dumps(uri))  # noqa: S301 - what was made here


def test_access_travels_with_the_address() -> None:
    store = open_store("S3://bucket/photos", KMS)
    there = sent(store.uri)
    assert (there, there.access) == ("s3://bucket/photos", KMS)
    assert isinstance(there, Address)
    assert json.dumps(there) == '"s3://bucket/photos"'
    opened = store_of(there)
    assert opened.access == KMS
    assert opened is store_of(sent(store.uri))
    assert store_of("s3://bucket/photos").access == Access()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("storage.input.endpoint=https://me:secret@host", "String should match pattern"),
        ("storage.input.endpoint=host:9000", "String should match pattern"),
        ("storage.output.bucket_owner=12", "String should match pattern"),
        ("storage.input.kms_key=x", "unknown key storage.input.kms_key"),
        ("storage.input.secret=x", "unknown key storage.input.secret"),
        ("storage.input={anonymous: true, profile: me}", "anonymous takes no credentials"),
        ("storage.input.read_timeout_s=0", "greater than 0"),
    ],
)
def test_what_the_config_refuses(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("local", [override])


def test_the_config_says_how_and_decides_nothing_about_the_output() -> None:
    config = load_config("local", ["storage.input.anonymous=true", "storage.output.kms_key=alias/x"])
    assert config.storage.input.access == Access(anonymous=True)
    number = load_config("local", ["storage.input.bucket_owner=123456789012"])  # YAML takes it for a number
    assert number.storage.input.access == Access(bucket_owner="123456789012")
    assert config.storage.output.access == Access(kms_key="alias/x")
    assert config.digest == load_config().digest


def test_a_read_that_hangs_ends(tmp_path: Path) -> None:
    class Hung(S3Store):
        def read(self, key: str, limit: int | None = None) -> bytes:
            threading.Event().wait()
            return b""

    with pytest.raises(HungError, match=r"no answer within 0.2 s .*read_timeout_s"):
        read_image(Hung(Address("s3://b", Access(read_timeout_s=0.2))), "x.jpg", 1, 10)
    assert _reason_of(HungError()) is ImageReason.UNREACHABLE
    assert within(5, lambda: 1) == 1
    with pytest.raises(ValueError, match="x"):
        within(5, lambda: int("x"))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "x.jpg")
    else:
        (tmp_path / "x.jpg").symlink_to("/dev/zero")
    with pytest.raises(FileNotFoundError, match="is not a file, but a pipe"):
        open_store(str(tmp_path)).read("x.jpg", 10)


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a")])
def test_a_file_and_a_folder_of_one_name_say_what_is_wrong(first: str, second: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write(first, b"1")
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "x").write_bytes(b"1")
    source, message = open_store(str(tmp_path / "from")), "a disk cannot have a file and a folder"
    writes: list[Callable[[], None]] = [
        partial(store.write, second, b"2"),
        partial(store.copy, source, "x", second, ""),
    ]
    for write in writes:
        with pytest.raises((NotADirectoryError, IsADirectoryError), match=message) as raised:
            write()
        assert _reason_of(raised.value) is ImageReason.UNSAFE_PATH
    assert store.read(first) == b"1"
