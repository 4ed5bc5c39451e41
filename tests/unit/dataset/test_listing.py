from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from occpipe.core import config
from occpipe.core.errors import StorageError
from occpipe.core.schemas import MANIFEST
from occpipe.dataset.corpus import Corpus, bounded, check_apart, describe_passed, open_corpus
from occpipe.dataset.layout import LISTING, PASSED_OVER, manifest_key
from occpipe.dataset.listing import Listed, list_corpus
from occpipe.dataset.manifest import ShardInfo, image_id, load_index, manifest_table, write_shard
from occpipe.dataset.parquet import read_footer, read_parquet
from occpipe.io.storage import Entry, Span, Store, open_store
from tests.helpers.memory import MemoryStore
from tests.helpers.stores import CREDENTIALS, make_bucket, moto_server

EXTENSIONS = config.Corpus().extensions


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"))


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(params=["local", "fsspec", "dict", "s3"])
def photos(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_steps: None) -> Store:
    """A store for a corpus, of each kind."""
    match request.param:
        case "local":
            return open_store(str(tmp_path / "in"))
        case "fsspec":
            return open_store(f"memory://{tmp_path.name}")
        case "dict":
            return in_memory(monkeypatch)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": request.getfixturevalue("s3_endpoint")}.items():
        monkeypatch.setenv(name, value)
    return open_store(f"{make_bucket(tmp_path.name)}/in")


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a few keys, so that a corpus of a hundred is divided again and again."""
    monkeypatch.setattr("occpipe.dataset.listing.SPAN_KEYS", 9)
    monkeypatch.setattr("occpipe.dataset.listing.MAX_TASKS", 3)
    monkeypatch.setattr("occpipe.io.storage.tree._FOLDER_WEIGHT", 3)
    monkeypatch.setattr("occpipe.io.storage.tree._MIN_CACHED", 3)
    monkeypatch.setattr("occpipe.io.storage.s3_keys.PAGE_KEYS", 9)


def in_memory(monkeypatch: pytest.MonkeyPatch, store: MemoryStore | None = None) -> MemoryStore:
    """A store in memory that is found by its URI."""
    store = store or MemoryStore("dict://in")
    known = open_store
    monkeypatch.setattr("occpipe.dataset.merge.open_store", lambda uri: store if uri == store.uri else known(uri))
    return store


def put(store: Store, keys: list[str], data: bytes = b"1") -> None:
    for key in keys:
        store.write(key, data)


def names(count: int, folder: str = "") -> list[str]:
    return [f"{folder}{number:03d}.jpg" for number in range(count)]


def corpus_of(store: Store) -> Corpus:
    return Corpus(store.uri, EXTENSIONS)


def no_executor() -> Executor:
    raise AssertionError("there is nothing to do in tasks")


def steps(
    corpus: Corpus,
    output: Store,
    *,
    shard_images: int = 8,
    limit: int | None = None,
    mark_changed: Callable[[int], None] = lambda _: None,
    tasks: bool = True,
) -> list[Listed]:
    with ThreadPoolExecutor(3) as pool:
        return list(
            list_corpus(
                corpus,
                output,
                shard_images=shard_images,
                limit=limit,
                executor=(lambda: pool) if tasks else no_executor,
                mark_changed=mark_changed,
            )
        )


def added(listed: list[Listed]) -> list[ShardInfo]:
    return [shard for one in listed for shard in one.added]


def shard_tables(output: Store) -> list[pa.Table]:
    return [read_parquet(output, manifest_key(shard.number)) for shard in load_index(output)]


def uris(output: Store) -> list[str]:
    return [uri for table in shard_tables(output) for uri in table.column("uri").to_pylist()]


def random_tree(seed: int, size: int) -> list[str]:
    """Images and other files in folders of any depth, some with many, some with names that are not ASCII."""
    rng = random.Random(seed)
    folders = ["", "a/", "a/b/", "a-b/", "a.b/", "0/", "z/ü/", "z/猫/", "long/way/down/to/", "many/"]
    keys = set[str]()
    while len(keys) < size:
        stem = rng.choice(["img-{:05d}", "{:x}", "é{}", "{}.tar", "😀{}", "I {}"]).format(rng.randrange(10**5))
        keys.add(rng.choice([*folders, "many/", "many/"]) + stem + rng.choice([".jpg", ".jpg", ".PNG", ".txt"]))
    return sorted(keys)


def check_whole(output: Store, listed: list[Listed], keys: list[str], shard_images: int) -> None:
    images = [key for key in keys if key.lower().endswith(EXTENSIONS)]
    assert sorted(uris(output)) == images
    assert listed[-1].seen == len(images)
    assert [one.seen for one in listed] == sorted(one.seen for one in listed)
    assert added(listed) == load_index(output)
    assert [shard.number for shard in added(listed)] == list(range(-(-len(images) // shard_images)))
    assert all(shard.rows == shard_images for shard in added(listed)[:-1])


@pytest.mark.parametrize("seed", range(3))
def test_a_listing_has_every_image_once(photos: Store, output: Store, tmp_path: Path, seed: int) -> None:
    keys = random_tree(seed, 60 if photos.uri.startswith("s3") else 200)
    put(photos, keys)
    listed = steps(corpus_of(photos), output, shard_images=7)
    check_whole(output, listed, keys, 7)
    again = open_store(str(tmp_path / "again"))
    assert steps(corpus_of(photos), again, shard_images=7) == listed
    assert all(x.equals(y) for x, y in zip(shard_tables(output), shard_tables(again), strict=True))


@pytest.mark.parametrize("seed", range(3, 20))
def test_a_listing_of_a_folder_has_every_image_once(
    tmp_path: Path, output: Store, small_steps: None, seed: int
) -> None:
    photos = open_store(str(tmp_path / "in"))
    keys = random_tree(seed, 150)
    put(photos, keys)
    check_whole(output, steps(corpus_of(photos), output, shard_images=11), keys, 11)


def test_shards_are_sorted_and_described_in_their_footers(photos: Store, output: Store) -> None:
    put(photos, [*names(20, "b/"), *names(20, "a/")])
    steps(corpus_of(photos), output)
    for shard, table in zip(load_index(output), shard_tables(output), strict=True):
        rows = table.column("uri").to_pylist()
        assert rows == sorted(rows)
        assert (shard.rows, shard.first, shard.last) == (len(rows), rows[0], rows[-1])
        assert table.schema.equals(MANIFEST)
        footer = read_footer(output, manifest_key(shard.number)).metadata[b"occpipe.shard"]
        assert json.loads(footer) == {"rows": shard.rows, "first": shard.first, "last": shard.last}


def test_a_second_listing_finds_what_is_new_and_what_changed(photos: Store, output: Store) -> None:
    before = [*names(30, "a/"), *names(12, "c/")]
    put(photos, before)
    steps(corpus_of(photos), output)
    rows = {uri: etag for table in shard_tables(output) for uri, etag in rows_of(table, "etag")}
    put(photos, ["a/0005.jpg", *names(9, "b/")])
    put(photos, ["a/003.jpg", "a/004.jpg", "c/011.jpg"], b"changed")
    photos.delete("a/010.jpg")
    marked: list[int] = []

    def mark_changed(shard: int) -> None:
        table = read_parquet(output, manifest_key(shard))
        is_old = all(rows[uri] == etag for uri, etag in rows_of(table, "etag"))
        assert is_old == (shard not in marked), "the marker comes first, and once more when the shard is written"
        marked.append(shard)

    listed = steps(corpus_of(photos), output, mark_changed=mark_changed)
    changed = [shard for one in listed for shard in one.changed]
    where = {uri: shard for shard, table in enumerate(shard_tables(output)) for uri, _ in rows_of(table, "etag")}
    assert marked == 2 * changed
    assert changed == sorted({where["a/003.jpg"], where["a/004.jpg"], where["c/011.jpg"]})
    assert [shard.number for shard in added(listed)] == [6, 7]
    assert sorted(uris(output)) == sorted([*before, "a/0005.jpg", *names(9, "b/")])  # what is gone stays
    assert listed[-1].seen == 42 + 10 - 1
    after = {uri: (size, etag) for table in shard_tables(output) for uri, size, etag in rows_of(table, "size", "etag")}
    assert {uri for uri, etag in rows.items() if after[uri][1] != etag} == {"a/003.jpg", "a/004.jpg", "c/011.jpg"}
    assert after["a/003.jpg"][0] == len(b"changed")
    assert all(table.schema.equals(MANIFEST) for table in shard_tables(output))
    third = steps(corpus_of(photos), output, mark_changed=mark_changed)
    assert [(one.added, one.changed) for one in third] == [((), ())] * len(third)


def rows_of(table: pa.Table, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table.column(name).to_pylist() for name in ("uri", *columns)), strict=True)


def test_many_changes_are_written_before_the_listing_ends(
    photos: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("occpipe.dataset.listing.MAX_CHANGED", 9)
    put(photos, names(60))
    steps(corpus_of(photos), output)
    put(photos, names(60), b"other")
    changed = [one.changed for one in steps(corpus_of(photos), output) if one.changed]
    assert len(changed) > 1
    assert {shard for some in changed for shard in some} == set(range(8))
    sizes = {size for table in shard_tables(output) for _, size in rows_of(table, "size")}
    assert sizes == {5}


def test_an_image_without_a_tag_never_changes(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = in_memory(monkeypatch)
    put(photos, ["a.jpg", "b.jpg"])
    write_shard(output, 0, manifest_table([Entry("a.jpg", None, ""), Entry("b.jpg", 1, "of b")]))
    (one, *_) = steps(corpus_of(photos), output, tasks=False)
    assert one.changed == ()
    monkeypatch.setattr(photos, "_entry", lambda key: Entry(key, 5, ""))
    assert [one.changed for one in steps(corpus_of(photos), output, tasks=False)] == [(), ()]


def test_a_small_corpus_needs_no_tasks(photos: Store, output: Store) -> None:
    put(photos, [*names(5), "x/1.jpg", "notes.txt"])
    assert added(steps(corpus_of(photos), output, tasks=False)) == [ShardInfo(0, 6, "000.jpg", "x/1.jpg")]


class _Blocking(MemoryStore):
    """Answers one request, and the others once it is let go."""

    def __init__(self) -> None:
        super().__init__("dict://in")
        self.let_go = threading.Event()
        self.asked = 0

    def list_keys(self, span: Span, limit: int) -> tuple[list[Entry], list[Span]]:
        self.asked += 1
        assert self.asked == 1 or self.let_go.wait(30)
        return super().list_keys(span, limit)


def test_the_first_shard_is_there_before_the_listing_ends(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = _Blocking()
    in_memory(monkeypatch, photos)
    put(photos, names(50))
    with ThreadPoolExecutor(2) as pool:
        listing = list_corpus(
            corpus_of(photos), output, shard_images=8, limit=None, executor=lambda: pool, mark_changed=lambda _: None
        )
        assert next(listing) == Listed(8, (ShardInfo(0, 8, "000.jpg", "007.jpg"),), ())
        assert uris(output) == names(8)
        photos.let_go.set()
        rest = list(listing)
    assert rest[-1].seen == 50
    assert uris(output) == names(50)


def test_a_folder_that_cannot_be_listed_ends_the_listing_with_its_name(
    photos: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(photos, [*names(20, "a/"), *names(20, "b/"), *names(20, "c/")])
    kind, closed = type(photos), True

    def list_keys(self: Store, span: Span, limit: int) -> tuple[list[Entry], list[Span]]:
        entries, left = known(self, span, limit)
        if closed and any(entry.key.startswith("b/") for entry in entries):
            raise OSError("the store is ill")
        return entries, left

    known = kind.list_keys
    monkeypatch.setattr(kind, "list_keys", list_keys)
    with pytest.raises(StorageError, match=r"could not be listed: the store is ill"):
        steps(corpus_of(photos), output)
    assert set(uris(output)) <= {*names(20, "a/"), *names(20, "c/")}  # those shards are true
    assert uris(output)
    closed = False
    steps(corpus_of(photos), output)
    assert sorted(uris(output)) == sorted([*names(20, "a/"), *names(20, "b/"), *names(20, "c/")])


def test_an_error_names_the_prefix(tmp_path: Path, output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = open_store(str(tmp_path / "in"))
    put(photos, [*names(9, "a/"), *names(9, "b/c/")])
    items = type(photos)._items  # type: ignore[attr-defined]  # of a tree

    def fail(self: Store, folder: str) -> object:
        if folder == "b/c":
            raise StorageError(f"{self.url(folder)}: no permission to list it")
        return items(self, folder)

    monkeypatch.setattr(type(photos), "_items", fail)
    with pytest.raises(StorageError, match=r"in/b/c: no permission to list it"):
        steps(corpus_of(photos), output)


OTHERS = {
    "hidden": [
        "._a.jpg",
        ".Trashes/1.jpg",
        "x/.thumbs/b.jpg",
        "@eaDir/a.jpg/SYNO.jpg",
        "__MACOSX/._a.jpg",
        ".DS_Store",
    ],
    ".jxl": ["x/IMG_1.JXL", "IMG_2.jxl"],
    ".jp2": ["a.jp2"],
    ".cr2": ["raw/a.CR2"],
    "no ending": ["README", "x/a.this-is-no-ending-at-all"],
}


@pytest.mark.parametrize("tasks", [False, True])
def test_what_is_passed_over_is_counted(photos: Store, output: Store, tasks: bool) -> None:
    images = ["a.jpg", "b.JFIF", "IMG_1.HEIC", "c.jpe", "d.jpg_large", "x/e..jpg", "x.y/f.jpeg"]
    put(photos, [*images, *(key for keys in OTHERS.values() for key in keys)])
    corpus = corpus_of(photos)
    list(steps(corpus, output, tasks=tasks, shard_images=8 if tasks else 100))
    assert sorted(uris(output)) == sorted(images)
    assert json.loads(output.read(PASSED_OVER)) == {kind: len(keys) for kind, keys in OTHERS.items()}


def test_hidden_files_are_taken_where_the_config_says_so(folder: Path, output: Store) -> None:
    put(open_store(str(folder)), [".hidden/1.jpg"])
    steps(open_corpus(str(folder), config.Corpus(hidden=True)), output, tasks=False, shard_images=100)
    assert ".hidden/1.jpg" in uris(output)


def test_a_hidden_root_and_a_list_are_meant(folder: Path, output: Store) -> None:
    folder = folder.rename(folder.with_name(".photos"))
    put(open_store(str(folder)), [".hidden/1.jpg"])
    (folder / "list.txt").write_text(".hidden/1.jpg\n")
    assert open_corpus(str(folder), config.Corpus()).root == str(folder)
    steps(open_corpus(f"{folder}/list.txt", config.Corpus()), output, tasks=False)
    assert uris(output) == [".hidden/1.jpg"]


def test_links_to_folders_are_passed_over_and_links_to_photos_are_taken(folder: Path, output: Store) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / "loop.jpg").symlink_to(folder)
    (folder / "link.jpg").symlink_to(folder / "a.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    steps(open_corpus(str(folder), config.Corpus()), output, tasks=False, shard_images=100)
    assert {"link.jpg", "gone.jpg"} < {*uris(output)}
    assert json.loads(output.read(PASSED_OVER)) == {".txt": 1, "links to folders": 2}


def test_a_pipe_is_listed_and_its_row_will_say_so(folder: Path, output: Store) -> None:
    os.mkfifo(folder / "pipe.jpg")
    steps(open_corpus(str(folder), config.Corpus()), output, tasks=False, shard_images=100)
    assert "pipe.jpg" in uris(output)
    with pytest.raises(FileNotFoundError, match="a pipe, a socket or a device"):
        open_store(str(folder)).read("pipe.jpg")


def test_a_folder_of_other_images_says_what_there_is(tmp_path: Path) -> None:
    put(open_store(str(tmp_path)), ["1.jxl", "2.jxl", "._1.jpg"])
    with pytest.raises(StorageError, match=r"no image there .*; passed over: 2 \.jxl, 1 hidden"):
        open_corpus(str(tmp_path), config.Corpus())


def test_endings_without_end_are_bounded() -> None:
    passed = bounded(Counter({f".{number}": 100 - number for number in range(50)}))
    assert len(passed) == 21
    assert passed["other endings"] == sum(100 - number for number in range(20, 50))
    assert describe_passed({".b": 1, ".a": 1, "hidden": 2000}) == "2,000 hidden, 1 .a, 1 .b"


@pytest.mark.parametrize("limit", [1, 8, 20, 1000])
def test_a_limit_takes_the_first_images(photos: Store, output: Store, limit: int) -> None:
    keys = [*names(15, "a/"), "a/notes.txt", *names(15, "b/"), "c.jpg"]
    put(photos, keys)
    listed = steps(corpus_of(photos), output, limit=limit, tasks=False)
    first = [key for key in keys if key.endswith(".jpg")][:limit]
    assert uris(output) == first
    assert listed[-1].seen == len(first)
    assert not added(steps(corpus_of(photos), output, limit=limit, tasks=False))


def test_tasks_may_run_in_other_processes(tmp_path: Path, output: Store) -> None:
    put(open_store(str(tmp_path / "in")), [*names(20, "a/"), *names(20, "b/")])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        corpus = open_corpus(f"{tmp_path}/in/**/*.jpg", config.Corpus())
        list(
            list_corpus(corpus, output, shard_images=8, limit=None, executor=lambda: pool, mark_changed=lambda _: None)
        )
    assert sorted(uris(output)) == [*names(20, "a/"), *names(20, "b/")]


def test_a_task_imports_little() -> None:
    code = "import sys, occpipe.dataset.listing; print({'torch', 'ray', 'boto3', 'pydantic'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_the_index_is_made_again_from_the_footers(photos: Store, output: Store) -> None:
    put(photos, names(30))
    steps(corpus_of(photos), output)
    index = load_index(output)
    output.delete(LISTING)
    assert load_index(output) == index
    output.delete(manifest_key(1))
    put(photos, ["x.jpg"])
    steps(corpus_of(photos), output)
    assert [shard.number for shard in load_index(output)] == [0, 2, 3, 4, 5]
    assert sorted(uris(output)) == [*names(30), "x.jpg"]


def test_images_that_are_gone_stay_known(photos: Store, output: Store) -> None:
    put(photos, ["x.jpg"])
    steps(corpus_of(photos), output)
    photos.delete("x.jpg")
    assert steps(corpus_of(photos), output)[-1] == Listed(0, (), ())


def test_names_that_are_not_utf8_are_listed_once(tmp_path: Path, output: Store) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name in ("a\udcff.jpg", "a\\udcff.jpg", "b.jpg"):
        (root / name).write_bytes(b"1")
    steps(corpus_of(open_store(str(root))), output, tasks=False)
    assert uris(output) == ["a\\udcff.jpg", "b.jpg"]


def test_ids_are_stable() -> None:
    assert image_id("a/b.jpg") == -5851126661803152025


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    put(open_store(str(root)), ["a.jpg", "b.PNG", "notes.txt", "x/c.jpeg", "x/y/d.webp", "x/e f.jpg", "[1].jpg"])
    return root


@pytest.fixture
def keys(output: Store) -> Callable[[str], list[str]]:
    """The images of a corpus, in the order of the manifest."""

    def list_it(uri: str) -> list[str]:
        steps(open_corpus(uri, config.Corpus()), output, tasks=False, shard_images=100)
        return uris(output)

    return list_it


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("", ["[1].jpg", "a.jpg", "b.PNG", "x/c.jpeg", "x/e f.jpg", "x/y/d.webp"]),
        ("/*.jpg", ["[1].jpg", "a.jpg"]),
        ("/**/*.jpg", ["[1].jpg", "a.jpg", "x/e f.jpg"]),
        ("/x/*", ["c.jpeg", "e f.jpg"]),
        ("/a.jpg", ["a.jpg"]),
        ("/x/e f.jpg", ["e f.jpg"]),
        ("/[1].jpg", ["[1].jpg"]),
    ],
)
def test_what_a_corpus_may_be(folder: Path, keys: Callable[[str], list[str]], uri: str, expected: list[str]) -> None:
    assert keys(f"{folder}{uri}") == expected


def test_a_folder_whose_name_has_magic_characters(folder: Path, keys: Callable[[str], list[str]]) -> None:
    odd = folder.parent / "photos[1]"
    folder.rename(odd)
    assert len(keys(str(odd))) == 6


def test_one_image_that_changed(folder: Path, output: Store) -> None:
    corpus = f"{folder}/a.jpg"
    steps(open_corpus(corpus, config.Corpus()), output, tasks=False)
    (folder / "a.jpg").write_bytes(b"changed")
    assert [one.changed for one in steps(open_corpus(corpus, config.Corpus()), output, tasks=False)] == [(), (0,)]
    assert shard_tables(output)[0].column("size").to_pylist() == [7]


def test_a_list_of_relative_uris(folder: Path, output: Store) -> None:
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbfx/e f.jpg\r\n\r\na.jpg\r\na.jpg\r\n../secret.jpg\r\n")
    corpus = open_corpus(f"{folder}/list.txt", config.Corpus())
    assert corpus.root == str(folder)
    listed = steps(corpus, output, shard_images=2, tasks=False)
    assert uris(output) == ["a.jpg", "x/e f.jpg", "../secret.jpg"]  # sorted within a shard; `load` refuses the last one
    assert listed[-1].seen == 3
    with (folder / "list.txt").open("a") as file:
        file.write("0.jpg\nb.PNG\n9.jpg\n")
    listed = steps(open_corpus(f"{folder}/list.txt", config.Corpus()), output, shard_images=2, tasks=False)
    assert [shard.number for shard in added(listed)] == [2, 3]
    assert uris(output)[3:] == ["0.jpg", "b.PNG", "9.jpg"]
    assert listed[-1] == Listed(6, (ShardInfo(3, 1, "9.jpg", "9.jpg"),), ())


def test_a_limit_of_a_list(folder: Path, output: Store) -> None:
    (folder / "list.txt").write_text("x/e f.jpg\na.jpg\nb.PNG\n")
    steps(open_corpus(f"{folder}/list.txt", config.Corpus()), output, limit=2, tasks=False)
    assert uris(output) == ["a.jpg", "x/e f.jpg"]


def test_a_parquet_of_absolute_uris(folder: Path, keys: Callable[[str], list[str]]) -> None:
    pq.write_table(pa.table({"uri": [f"{folder}/a.jpg", f"{folder}/x/c.jpeg"]}), folder / "list.parquet")
    assert open_corpus(f"{folder}/list.parquet", config.Corpus()).root == "/"
    assert keys(f"{folder}/list.parquet") == [f"{folder}/{name}".removeprefix("/") for name in ("a.jpg", "x/c.jpeg")]


def test_lists_that_are_none(folder: Path) -> None:
    (folder / "mixed.txt").write_text("s3://b/a.jpg\nx/c.jpeg\n")
    (folder / "bad.parquet").write_bytes(b"no")
    pq.write_table(pa.table({"uri": ["a.jpg", None]}), folder / "null.parquet")
    (folder / "web.txt").write_text("https://example.invalid/a.jpg")
    (folder / "empty.txt").write_text("\n")
    for name, message in (
        ("mixed.txt", "one kind of URI"),
        ("bad.parquet", "column `uri`"),
        ("null.parquet", "row 1 has no uri"),
        ("web.txt", "web addresses"),
        ("empty.txt", "the list is empty"),
        ("nowhere.txt", "nowhere.txt"),
    ):
        with pytest.raises(StorageError, match=message):
            open_corpus(f"{folder}/{name}", config.Corpus())


@pytest.mark.parametrize("name", ["typo.jpg", "*.bmp", "nowhere/*.jpg", "nowhere", "notes.doc"])
def test_nothing_found_is_an_error(folder: Path, output: Store, name: str) -> None:
    with pytest.raises(StorageError):
        steps(open_corpus(f"{folder}/{name}", config.Corpus()), output, tasks=False, shard_images=100)


_FOLDER: dict[str, Any] = {}
_ONE: dict[str, Any] = {"entries": (Entry("1.jpg", 1, ""),)}
_LIST: dict[str, Any] = {"entries": (Entry("1.jpg", None, ""),), "is_list": True}


@pytest.mark.parametrize(
    ("kind", "root", "output", "message"),
    [
        (_FOLDER, "/x/in", "/x/in", "written over"),
        (_FOLDER, "/x/out/images", "/x/out", "written over"),
        (_FOLDER, "/x/out/images/a", "/x/out", "written over"),
        (_FOLDER, "/x/in", "/x/in/out", "lies inside the input"),
        (_FOLDER, "s3://b", "s3://b/out", "lies inside the input"),
        (_FOLDER, "/x/in", "/x/in2", None),
        ({"pattern": "*.jpg"}, "/x/in", "/x/in/out", None),
        ({"pattern": "*/*.jpg"}, "/x/in", "/x/in/out", None),
        ({"pattern": "**/*.jpg"}, "/x/in", "/x/in/out", "lies inside the input"),
        ({"pattern": "*.jpg"}, "/x/out/images", "/x/out", "written over"),
        (_ONE, "/x/in", "/x/in/out", None),
        (_ONE, "/x/in", "/x/in", None),
        (_ONE, "/x/out/images", "/x/out", "written over"),
        (_ONE, "/x/in", "/x/clean.jpg", "OUTPUT is a folder"),
        (_LIST, "/", "/x/out", None),
        (_LIST, "/x/in", "/x/in/out", None),
        (_LIST, "/x/out/images", "/x/out", "written over"),
    ],
)
def test_input_and_output_are_apart(kind: dict[str, Any], root: str, output: str, message: str | None) -> None:
    corpus = Corpus(root, (".jpg",), **kind)
    if message is None:
        check_apart(corpus, output)
        return
    with pytest.raises(StorageError, match=message):
        check_apart(corpus, output)


def test_an_output_that_is_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(StorageError, match="note is a file, and OUTPUT is a folder"):
        check_apart(open_corpus(str(folder), config.Corpus()), str(tmp_path / "note"))
