"""Lists as common tools write them, and those of which nothing can be read."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from occpipe.core import config
from occpipe.core.errors import StorageError
from occpipe.dataset.corpus import Corpus, open_corpus

BOTH = ["in/a b.jpg", "in/c.png"]
AWS = (
    "                           PRE old/\n"
    "2026-11-28 14:14:12          0 in/\n"
    "2026-11-28 14:14:12      12345 in/a b.jpg\n"
    "2026-11-28 14:14:12       1345 in/c.png\n\nTotal Objects: 2\n   Total Size: 13690\n"
)
S5CMD = (
    "                                  DIR  old/\n"
    "2026/11/28 14:14:12             12345  in/a b.jpg\n2026/11/28 14:14:12  STANDARD    1345  in/c.png\n"
)
RCLONE = "    12345 in/a b.jpg\n     1345 in/c.png\n"
POWERSHELL = "\r\nFullName\r\n--------\r\nin/a b.jpg      \r\nin/c.png   \r\n\r\n"


def utf16(text: str) -> bytes:
    return b"\xff\xfe" + text.encode("utf-16-le")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a b.jpg", "c.png", "#1.jpg"):
        (tmp_path / "in" / name).write_bytes(b"x")
    (tmp_path / "#1.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keys(corpus: Corpus) -> list[str]:
    assert corpus.is_list
    return [entry.key for entry in corpus.entries or ()]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("find.txt", b"./in/a b.jpg\n./in/c.png\n"),
        ("find.lst", b"in/a b.jpg\nin/c.png"),
        ("print0.txt", b"./in/a b.jpg\0./in/c.png\0"),
        ("slashes.txt", b"in//a b.jpg\nin/./c.png\n"),
        ("ls.txt", b'"in/a b.jpg"\n"in/c.png"\n'),
        ("twice.txt", b"in/a b.jpg\nin/c.png\n./in/c.png\nin/a b.jpg\n"),
        ("comments.txt", b"# my photos\n\n#\n#in/old\nin/a b.jpg\r\n\t\nin/c.png\n"),
        ("folders.txt", b"in/\nin/a b.jpg\nin/c.png\n"),
        ("backslashes.txt", b"in\\a b.jpg\r\n.\\in\\c.png\r\n"),
        ("aws.txt", AWS.encode()),
        ("s5cmd.txt", S5CMD.encode()),
        ("rclone.txt", RCLONE.encode()),
        ("powershell.txt", utf16(POWERSHELL)),
        ("names.txt", utf16("in/a b.jpg\r\nin/c.png\r\n")),
        ("big.txt", b"\xfe\xff" + "in/a b.jpg\nin/c.png".encode("utf-16-be")),
        ("no-mark.txt", "in/a b.jpg\nin/c.png".encode("utf-16-le")),
        ("bom.txt", b"\xef\xbb\xbfin/a b.jpg\nin/c.png\n"),
        ("excel.csv", b"\xef\xbb\xbfNo;URI;Note\r\n1;in/a b.jpg;x\r\n2;in/c.png;y\r\n;;\r\n"),
        ("sep.csv", b"sep=;\r\nfile_name;note\r\nin/a b.jpg;1\r\nin/c.png;2\r\n"),
        ("unicode.csv", utf16("path\tnote\r\nin/a b.jpg\t1\r\nin/c.png\t2\r\n")),
        ("duckdb.csv", b'url\n"in/a b.jpg"\nin/c.png\n'),
        ("hf.csv", b'file_name,caption\nin/a b.jpg,"a, b"\nin/c.png,c\n'),
        ("tab.tsv", b"filename\tx\nin/a b.jpg\t1\nin/c.png\t2\n"),
    ],
)
def test_what_common_tools_write(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    corpus = open_corpus(name, config.Corpus())
    assert (corpus.root, keys(corpus)) == (str(folder), BOTH)


@pytest.mark.parametrize("column", ["uri", "url", "path", "file_name", "filename", "image"])
def test_a_parquet_file_with_a_column_of_images(folder: Path, column: str) -> None:
    pq.write_table(pa.table({"size": [1, 2], column: pa.array(BOTH).dictionary_encode()}), "list.parquet")
    assert keys(open_corpus("list.parquet", config.Corpus())) == BOTH


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_folder_as_spark_writes_it_is_a_list(folder: Path, kind: str) -> None:
    parts = folder / f"list.{kind}"
    parts.mkdir()
    for number, name in enumerate(BOTH):
        if kind == "parquet":
            pq.write_table(pa.table({"path": [name]}), parts / f"part-{number:05d}.parquet")
        else:
            (parts / f"part-{number:05d}.csv").write_text(f"path\n{name}\n")
    for name in ("_SUCCESS", ".part-00000.crc", "._SUCCESS.crc"):
        (parts / name).write_bytes(b"")
    assert keys(open_corpus(f"list.{kind}", config.Corpus())) == BOTH


@pytest.mark.parametrize("name", ["holiday.txt", "holiday.parquet", "holiday.csv", "holiday.jpg"])
def test_a_folder_of_photos_with_the_name_of_a_file_is_a_folder(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / "1.jpg").write_bytes(b"x")
    corpus = open_corpus(name, config.Corpus())
    assert (corpus.root, corpus.entries) == (str(folder / name), None)


def test_a_file_whose_name_begins_as_a_comment_does(folder: Path) -> None:
    (folder / "list.txt").write_text("#1.jpg\n# 1.jpg\nin/#1.jpg\n")
    assert keys(open_corpus("list.txt", config.Corpus())) == ["#1.jpg", "in/#1.jpg"]


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}", "FILE://localhost{}"])
def test_absolute_names_and_uris(folder: Path, form: str) -> None:
    (folder / "list.txt").write_text("".join(f"{form.format(folder / name)}\n" for name in BOTH))
    corpus = open_corpus("list.txt", config.Corpus())
    assert (corpus.root, keys(corpus)) == ("/", [f"{folder}/{name}"[1:] for name in BOTH])


def test_encoded_uris_of_spark_and_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "list.txt").write_text(f"{(folder / 'in' / 'a b.jpg').as_uri()}\n~/in/c.png\n")
    assert keys(open_corpus("list.txt", config.Corpus())) == [f"{folder}/{name}"[1:] for name in BOTH]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.txt", b"\n# nothing\n", "the list is empty"),
        ("gone.txt", b"./nowhere/a.jpg\nb.jpg\n", "none of its 2 images can be read, the first is .*it is not there"),
        ("out.txt", b"../a.jpg\n", "would lead out of the folder of the list"),
        ("windows.txt", b"C:\\photos\\a.jpg\r\n", "is none of this system"),
        ("aws.txt", b"2026-11-28 14:14:12      12345 photos/a.jpg\n", "`aws s3 ls` leaves out the bucket"),
        ("garbage.txt", random.Random(0).randbytes(64), "can be read|empty|would lead"),
        ("mixed.txt", b"s3://b/a.jpg\nin/c.png\n", "one kind of URI, this one has relative paths, s3://"),
        ("packed.txt", gzip.compress(b"in/c.png\n", mtime=0), "can be read|would lead"),
        ("web.txt", b"https://example.invalid/a.jpg", "web addresses"),
        ("column.csv", b"id,caption\n1,x\n", "no column `uri`.*id, caption"),
        ("hole.csv", b"uri,n\na.jpg,1\n,2\n", "row 1 has no uri"),
        ("bad.parquet", b"no", "no Parquet file with a column `uri`"),
    ],
)
def test_lists_of_which_nothing_can_be_read_are_refused(folder: Path, name: str, data: bytes, message: str) -> None:
    (folder / name).write_bytes(data)
    with pytest.raises(StorageError, match=message) as raised:
        open_corpus(name, config.Corpus())
    assert "\n" not in str(raised.value)


def test_one_image_that_can_be_read_is_enough(folder: Path) -> None:
    (folder / "list.txt").write_bytes("gone.jpg\n../out.jpg\n\xe9.jpg\nin/c.png\n".encode("latin-1"))
    assert keys(open_corpus("list.txt", config.Corpus())) == ["gone.jpg", "../out.jpg", "\udce9.jpg", "in/c.png"]
