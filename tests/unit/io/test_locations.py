"""What a user may type as a place, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from occpipe.core.errors import ConfigError, StorageError
from occpipe.io.storage import locate, open_store, split_name
from occpipe.io.storage.local import LocalStore


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("photos", "{cwd}/photos"),
        ("./photos/", "{cwd}/photos"),
        (".", "{cwd}"),
        ("../photos", "{cwd}/../photos"),  # a link in the middle decides what .. is, so it is left to the system
        ("~", "{home}"),
        ("~/photos", "{home}/photos"),
        ("~nobody-of-this-name/x", "{cwd}/~nobody-of-this-name/x"),
        ("~$report.jpg", "{cwd}/~$report.jpg"),
        ("/photos//2019/", "/photos/2019"),
        ("/", "/"),
        ("/list.txt", "/list.txt"),
        ("./s3:/photos", "{cwd}/s3:/photos"),
        ("12:30.jpg", "{cwd}/12:30.jpg"),
        ("IMG:1.jpg", "{cwd}/IMG:1.jpg"),
        ("file:///photos/a b", "/photos/a b"),
        ("file:///photos/a%20b", "/photos/a b"),
        ("file:/photos", "/photos"),
        ("FILE://localhost/photos", "/photos"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/Photos/", "s3://bucket/Photos"),
        ("s3:///bucket/photos", "s3://bucket/photos"),
        ("s3a://bucket/photos", "s3://bucket/photos"),
        ("s3n://bucket/photos", "s3://bucket/photos"),
        ("s3://bucket/2019/*.jpg", "s3://bucket/2019/*.jpg"),
        ("gcs://bucket/x", "gs://bucket/x"),
        ("az://container/x", "az://container/x"),
        ("hdfs:///photos", "hdfs:///photos"),
        ("memory://x", "memory://x"),
    ],
)
def test_what_names_a_place(text: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    expected = place.format(cwd=tmp_path, home="/home/me")
    assert locate(text) == expected
    assert locate(expected) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "OUTPUT is empty"),
        ("  ", "OUTPUT is empty"),
        ("-", "standard input and output"),
        ("/dev/stdin", "standard input and output"),
        ("/dev/fd/63", "standard input and output"),
        ("photos\n", "control characters"),
        ("a\0b", "control characters"),
        ("s3:/bucket/out", "did you mean s3://bucket/out"),
        ("S3:/bucket/out", "did you mean s3://bucket/out"),
        ("s3:bucket/out", "did you mean s3://bucket/out"),
        ("gs:/bucket", "did you mean gs://bucket"),
        ("host:/data/photos", "did you mean host://data/photos, or the folder ./host:/data/photos"),
        ("arn:aws:s3:::bucket/photos", "did you mean s3://bucket/photos"),
        ("s3://", "names no bucket"),
        ("s3:///", "names no bucket"),
        ("gs://", "names no bucket"),
        ("C:\\photos", "a Windows path; in WSL it is /mnt/c/"),
        ("d:/photos", "a Windows path; in WSL it is /mnt/d/"),
        ("\\\\server\\photos", "a Windows path"),
        ("file://photos/x", "write file:///photos/x"),
        ("file://", "names no path"),
    ],
)
def test_what_names_none_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        locate(text, "OUTPUT")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        ("/a.jpg", ("/", "a.jpg")),
        ("/x/a.jpg", ("/x", "a.jpg")),
        ("s3://bucket/a.jpg", ("s3://bucket", "a.jpg")),
        ("s3://bucket", ("s3://bucket", "")),
        ("/", ("/", "")),
    ],
)
def test_split_name(place: str, parts: tuple[str, str]) -> None:
    assert split_name(place) == parts


def test_addresses_of_keys_below_a_scheme_and_the_root() -> None:
    assert open_store("s3://").url("bucket/x.jpg") == "s3://bucket/x.jpg"
    assert open_store("/").url("x.jpg") == "/x.jpg"
    assert isinstance(open_store("file:///x%20y"), LocalStore)
    assert open_store("file:///x%20y").uri == "/x y"


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="that was deleted"):
        locate("photos")
    assert locate("/photos") == "/photos"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("az://c/x", r"Install adlfs .*; pip install 'occpipe\[azure\]'"),
        ("hdfs://nn:8020/x", r"hdfs://nn:8020/x: .*libjvm"),
        ("ftp://127.0.0.1:1/x", "ftp://127.0.0.1:1/x: .*refused"),
        ("xyz://b/x", "xyz"),
        ("/dev/null", "/dev/null: not a folder"),
    ],
)
def test_a_driver_that_fails_is_one_line_with_its_uri(uri: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(StorageError, match=message) as raised:
        open_store(uri).check_readable()
    assert "\n" not in str(raised.value)
