from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from occpipe.done import Done, etag_hash
from occpipe.stages.source import ManifestSource

from occpipe.config import Corpus
from occpipe.errors import StorageError
from occpipe.schemas import MANIFEST
from occpipe.stages.discover import check_apart, discover, image_id, open_corpus
from occpipe.storage import open_store

NOTHING = Done(np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    for name in ("a.jpg", "b.PNG", "notes.txt", "x/c.jpeg", "x/y/d.webp", "x/e f.jpg", "[1].jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    return root


def keys(uri: str) -> list[str]:
    return sorted(entry.key for entry in open_corpus(uri, Corpus())[1])


def test_a_folder(corpus: Path) -> None:
    assert keys(str(corpus)) == ["[1].jpg", "a.jpg", "b.PNG", "x/c.jpeg", "x/e f.jpg", "x/y/d.webp"]


def test_globs(corpus: Path) -> None:
    assert keys(f"{corpus}/*.jpg") == ["[1].jpg", "a.jpg"]
    assert keys(f"{corpus}/**/*.jpg") == ["[1].jpg", "a.jpg", "x/e f.jpg"]
    assert keys(f"{corpus}/x/*") == ["c.jpeg", "e f.jpg"]


def test_one_image(corpus: Path) -> None:
    assert keys(f"{corpus}/a.jpg") == ["a.jpg"]
    assert keys(f"{corpus}/x/e f.jpg") == ["e f.jpg"]


def test_a_list_of_relative_uris(corpus: Path) -> None:
    (corpus / "list.txt").write_text("a.jpg\n\nx/e f.jpg\n../secret.jpg\n")
    root, entries = open_corpus(f"{corpus}/list.txt", Corpus())
    assert [entry.key for entry in entries] == ["a.jpg", "x/e f.jpg", "../secret.jpg"]  # fetch refuses the last one
    assert root == str(corpus)


def test_a_parquet_of_absolute_uris(corpus: Path) -> None:
    pq.write_table(pa.table({"uri": [f"{corpus}/a.jpg", f"{corpus}/x/c.jpeg"]}), corpus / "list.parquet")
    root, entries = open_corpus(f"{corpus}/list.parquet", Corpus())
    found = [entry.key for entry in entries]
    assert all((Path(root) / key).exists() for key in found)
    assert found[0] == f"{corpus}/a.jpg".removeprefix("/")


def test_lists_that_are_none(corpus: Path) -> None:
    (corpus / "mixed.txt").write_text("s3://b/a.jpg\nx/c.jpeg\n")
    with pytest.raises(StorageError, match="one kind of URI"):
        open_corpus(f"{corpus}/mixed.txt", Corpus())
    (corpus / "bad.parquet").write_bytes(b"no")
    with pytest.raises(StorageError, match="column `uri`"):
        open_corpus(f"{corpus}/bad.parquet", Corpus())
    pq.write_table(pa.table({"uri": ["a.jpg", None]}), corpus / "null.parquet")
    with pytest.raises(StorageError, match="row 1 has no uri"):
        open_corpus(f"{corpus}/null.parquet", Corpus())
    (corpus / "web.txt").write_text("https://example.invalid/a.jpg")
    with pytest.raises(StorageError, match="web addresses"):
        open_corpus(f"{corpus}/web.txt", Corpus())
    with pytest.raises(StorageError):
        open_corpus(f"{corpus}/nowhere.txt", Corpus())


def test_a_missing_corpus(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file or folder"):
        open_corpus(str(tmp_path / "nowhere"), Corpus())


def test_the_manifest_holds_what_is_to_do(corpus: Path, tmp_path: Path) -> None:
    output = open_store(str(tmp_path / "out"))
    (entry,) = open_corpus(f"{corpus}/a.jpg", Corpus())[1]
    done = Done(np.array([image_id("a.jpg")], np.int64), np.array([etag_hash(entry.etag)], np.int64))
    found = discover(*open_corpus(str(corpus), Corpus()), output, done, 1)
    assert (found.seen, found.pending) == (6, 5)
    (shard,) = found.shards
    table = pq.read_table(f"{output.uri}/{shard.key}")
    assert table.schema == MANIFEST
    assert "a.jpg" not in table.column("uri").to_pylist()
    assert table.column("image_id").to_pylist() == [image_id(uri) for uri in table.column("uri").to_pylist()]


@pytest.mark.parametrize(
    ("uri", "root", "output", "message"),
    [
        ("in", "/x/in", "/x/in", "written over"),
        ("out/images", "/x/out/images", "/x/out", "written over"),
        ("out/images/a", "/x/out/images/a", "/x/out", "written over"),
        ("in", "/x/in", "/x/in/out", "lies inside the input"),
        ("s3://b", "s3://b", "s3://b/out", "lies inside the input"),
    ],
)
def test_input_and_output_are_apart(uri: str, root: str, output: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        check_apart(uri, root, output)


@pytest.mark.parametrize(
    ("uri", "root", "output"),
    [("in", "/x/in", "/x/in2"), ("list.txt", "/", "/x/out"), ("list.txt", "/x/in", "/x/in/out")],
)
def test_outputs_that_are_apart(uri: str, root: str, output: str) -> None:
    check_apart(uri, root, output)


def test_limit(corpus: Path, tmp_path: Path) -> None:
    found = discover(*open_corpus(str(corpus), Corpus()), open_store(str(tmp_path / "out")), NOTHING, 1, limit=2)
    assert (found.seen, found.pending) == (2, 2)


def test_ids_are_stable() -> None:
    assert image_id("a/b.jpg") == -5851126661803152025


def test_an_image_named_twice_is_one(corpus: Path) -> None:
    (corpus / "twice.txt").write_bytes(b"\xef\xbb\xbfa.jpg\r\na.jpg\r\nx/c.jpeg\r\n")
    assert keys(f"{corpus}/twice.txt") == ["a.jpg", "x/c.jpeg"]


def test_a_collision_is_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.stages.discover.image_id", lambda uri: len(uri))
    with pytest.raises(StorageError, match="two images have one id"):
        discover(*open_corpus(str(corpus), Corpus()), open_store(str(tmp_path / "out")), NOTHING, 1)


def test_names_with_magic_characters_stand_for_themselves(corpus: Path, tmp_path: Path) -> None:
    assert keys(f"{corpus}/[1].jpg") == ["[1].jpg"]
    odd = tmp_path / "photos[1]"
    corpus.rename(odd)
    assert len(keys(str(odd))) == 6


@pytest.mark.parametrize("name", ["typo.jpg", "*.bmp", "nowhere/*.jpg"])
def test_nothing_found_is_an_error(corpus: Path, name: str) -> None:
    with pytest.raises(StorageError):
        open_corpus(f"{corpus}/{name}", Corpus())


def test_names_that_are_not_utf8_are_listed(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / "a\udcff.jpg").write_bytes(b"1")
    output = open_store(str(tmp_path / "out"))
    found = discover(*open_corpus(str(root), Corpus()), output, NOTHING, 1)
    assert pq.read_table(f"{output.uri}/{found.shards[0].key}").column("uri").to_pylist() == ["a\\udcff.jpg"]


def test_read_tasks_cover_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for number in range(300):
        (root / f"{number:03d}.jpg").write_bytes(b"1")
    monkeypatch.setattr("occpipe.stages.source.MAX_READ_TASKS", 3)
    monkeypatch.setattr("occpipe.stages.discover.SHARD_ROWS", 200)
    output = open_store(str(tmp_path / "out"))
    found = discover(*open_corpus(str(root), Corpus()), output, NOTHING, 1)
    tasks = ManifestSource(output.uri, found).get_read_tasks(1)
    assert len(found.shards) == 2
    assert len(tasks) == 3
    uris = [uri for task in tasks for block in task() for uri in block.column("uri").to_pylist()]
    assert sorted(uris) == [f"{number:03d}.jpg" for number in range(300)]
