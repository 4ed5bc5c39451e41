"""Corpora of containers: what is listed, and what the commit of a shard writes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from occpipe.core import config
from occpipe.core.errors import StorageError
from occpipe.core.schemas import PUBLISHED
from occpipe.core.types import Status
from occpipe.dataset.containers import list_containers
from occpipe.dataset.containers_commit import Containers, read_output
from occpipe.dataset.containers_pack import Pack
from occpipe.dataset.corpus import Corpus, open_corpus
from occpipe.dataset.layout import FIRST, manifest_key
from occpipe.dataset.listing import Listed, list_corpus
from occpipe.dataset.manifest import image_id, load_index
from occpipe.dataset.parquet import read_parquet
from occpipe.dataset.shards import commit_shard, pending_rows, write_part
from occpipe.io.containers import place_of
from occpipe.io.storage import Store, open_store
from tests.helpers.containers import JPEG, contents, datasets_table, picture, samples, tar_of, write_parquet

Row = dict[str, Any]


def put(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def listed(corpus: Corpus | str | Path, output: Store, images: int = 8_192, limit: int | None = None) -> list[Listed]:
    corpus = corpus if isinstance(corpus, Corpus) else open_corpus(str(corpus), config.Corpus())

    def mark(shard: int) -> None:
        output.write(FIRST.open_marker(shard), b"")

    with ThreadPoolExecutor(2) as pool:
        return list(list_containers(corpus, output, images, limit, lambda: pool, mark))


def manifest(output: Store) -> dict[int, list[str]]:
    return {
        info.number: read_parquet(output, manifest_key(info.number)).column("uri").to_pylist()
        for info in load_index(output)
    }


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ("", ["00000.tar", "00001.tar", "00002.tar", "a/00003.tar"]),
        ("00001.tar", ["00001.tar"]),
        ("*.tar", ["00000.tar", "00001.tar", "00002.tar"]),
        ("{00001..00007}.tar", ["00001.tar", "00002.tar"]),
        ("{00000,00002}.tar", ["00000.tar", "00002.tar"]),
        ("**/*.tar", ["00000.tar", "00001.tar", "00002.tar", "a/00003.tar"]),
    ],
)
def test_tars_are_a_corpus_by_folder_name_glob_and_braces(
    tmp_path: Path, output: Store, place: str, keys: list[str]
) -> None:
    for key in ("00000", "00001", "00002", "a/00003"):  # as img2dataset lays them out
        put(tmp_path / "in", f"{key}.tar", tar_of(samples(range(2), [JPEG] * 2)))
        put(tmp_path / "in", f"{key}_stats.json", b"{}")
        write_parquet(
            tmp_path / "in" / f"{key}.parquet", pa.table({"url": ["https://example.org/1.jpg"], "key": ["0"]})
        )
    listed(f"{tmp_path}/in/{place}".rstrip("/"), output)
    assert manifest(output) == {0: [f"{key}#{number:09d}.jpg" for key in keys for number in range(2)]}


def test_a_folder_of_parquet_files_with_images_is_a_corpus(tmp_path: Path, output: Store) -> None:
    for part in range(2):
        write_parquet(tmp_path / "in" / "data" / f"train-{part}.parquet", datasets_table([JPEG] * 3))
    put(tmp_path / "in", "README.md", b"# a card")
    listed(tmp_path / "in", output)
    assert manifest(output)[0] == [f"data/train-{part}.parquet#{row}" for part in range(2) for row in range(3)]
    assert json.loads(output.read("state/passed_over.json")) == {".md": 1}


def test_loose_images_stay_loose_where_containers_lie_beside_them(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", JPEG)
    put(tmp_path, "b.tar", tar_of(samples(range(2), [JPEG] * 2)))
    assert not open_corpus(str(tmp_path), config.Corpus()).members


def test_a_parquet_file_of_uris_is_a_list(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", JPEG)
    write_parquet(tmp_path / "list.parquet", pa.table({"uri": ["a.jpg"]}))
    assert open_corpus(f"{tmp_path}/list.parquet", config.Corpus()).is_list


def test_a_folder_that_spark_has_written_is_a_corpus(tmp_path: Path, output: Store) -> None:
    write_parquet(tmp_path / "photos.parquet" / "part-00000.snappy.parquet", pa.table({"content": [JPEG]}))
    put(tmp_path / "photos.parquet", "_SUCCESS", b"")
    listed(tmp_path / "photos.parquet", output)
    assert manifest(output)[0] == ["part-00000.snappy.parquet#0"]


def test_the_image_column_may_be_named(tmp_path: Path, output: Store) -> None:
    write_parquet(tmp_path / "in" / "a.parquet", pa.table({"before": [JPEG], "after": [JPEG]}))
    with pytest.raises(StorageError, match="no image there"):
        open_corpus(f"{tmp_path}/in", config.Corpus())
    listed(open_corpus(f"{tmp_path}/in", config.Corpus(image_column="after")), output)
    place = place_of(read_parquet(output, manifest_key(0)).column("etag")[0].as_py())
    assert place is not None
    assert (place.kind, place.where) == ("parquet", "after")


def test_whole_containers_fill_shards_in_their_order(tmp_path: Path, output: Store) -> None:
    for number in range(30):
        put(tmp_path / "in", f"{number:05d}.tar", tar_of(samples(range(4), [JPEG] * 4)))
    put(tmp_path / "in", "large.tar", tar_of(samples(range(25), [JPEG] * 25)))
    steps = listed(tmp_path / "in", output, images=10)
    shards = manifest(output)
    assert [len(uris) for uris in shards.values()] == [8] * 15 + [25]
    assert [uri for uris in shards.values() for uri in uris] == sorted(uri for uris in shards.values() for uri in uris)
    assert (steps[-1].seen, sum(len(step.added) for step in steps)) == (145, 16)
    again = listed(tmp_path / "in", output, images=10)
    assert ([step.added for step in again if step.added], again[-1].seen) == ([], 145)


def test_a_limit_lists_whole_containers_until_it_is_reached(tmp_path: Path, output: Store) -> None:
    for number in range(20):
        put(tmp_path / "in", f"{number:05d}.tar", tar_of(samples(range(4), [JPEG] * 4)))
    assert listed(tmp_path / "in", output, limit=6)[-1].seen == 8


def test_a_changed_container_is_listed_anew_in_its_place(tmp_path: Path, output: Store) -> None:
    for number in range(3):
        put(tmp_path / "in", f"{number}.tar", tar_of(samples(range(2), [JPEG] * 2)))
    listed(tmp_path / "in", output)
    put(tmp_path / "in", "1.tar", tar_of([("new.jpg", JPEG), ("other.jpg", JPEG), ("third.jpg", JPEG)]))
    put(tmp_path / "in", "3.tar", tar_of([("late.jpg", JPEG)]))
    last = listed(tmp_path / "in", output)[-1]
    old = [[f"{container}.tar#{number:09d}.jpg" for number in range(2)] for container in (0, 2)]
    new = [f"1.tar#{name}.jpg" for name in ("new", "other", "third")]
    assert manifest(output) == {0: [*old[0], *new, *old[1]], 1: ["3.tar#late.jpg"]}
    assert last.changed == (0,)
    assert {info.number: info.rows for info in last.added} == {0: 7, 1: 1}
    assert output.find(FIRST.open_marker(0)) is not None


def test_a_name_with_a_number_sign_is_passed_over(tmp_path: Path, output: Store) -> None:
    put(tmp_path / "in", "a#b.tar", tar_of([("a.jpg", JPEG)]))
    put(tmp_path / "in", "c.tar", tar_of([("a.jpg", JPEG)]))
    listed(tmp_path / "in", output)
    assert manifest(output) == {0: ["c.tar#a.jpg"]}
    assert json.loads(output.read("state/passed_over.json")) == {"names with #": 1}


def write_rows(output: Store, run: int = 1, **cleaned: bytes) -> None:
    """Write parts as a run does: images are cleaned where new bytes are given by name, and unchanged otherwise."""
    for info in load_index(output):
        rows: list[Row] = []
        blob = b""
        for index, item in enumerate(read_parquet(output, manifest_key(info.number)).to_pylist()):
            place = place_of(item["etag"])
            assert place is not None
            name = item["uri"].partition("#")[2]
            row: Row = {"image_id": image_id(item["uri"]), "status": "unchanged", "config": "c", **item}
            row |= {"sha256": "of the source", "size": item["size"] or 0}
            if place.kind == "fault":
                row |= {"status": "skipped" if "no_images" in place.where else "error"}
                row |= {"reason": place.where.partition("/")[0]}
            if (data := cleaned.get(f"_{name.partition('.')[0]}")) is not None:
                where = {"output": f"{FIRST.parts(info.number)}/{run}.bin", "output_offset": len(blob)}
                row |= {"status": "cleaned", "output_size": len(data), **where}
                row["output_sha256"] = hashlib.sha256(data).hexdigest()
                blob += data
            rows.append({field: row.get(field) for field in PUBLISHED.names} | {"row": index})
        if blob:
            output.write(f"{FIRST.parts(info.number)}/{run}.bin", blob)
        write_part(output, FIRST, run, info.number, 0, pa.Table.from_pylist(rows, PUBLISHED))


def commit(output: Store, folder: Path, shard: int = 0, **options: bool) -> tuple[int, int]:
    result = commit_shard(output, FIRST, shard, Containers(open_store(str(folder)).uri, **options))
    return result.missing, result.failed


def rows_of(output: Store, shard: int = 0) -> dict[str, Row]:
    return {row["uri"]: row for row in read_parquet(output, FIRST.rows(shard)).to_pylist()}


def keys(output: Store, folder: str) -> list[str]:
    return [entry.key for entry in output.walk(folder)]


def test_a_tar_is_written_with_cleaned_images_in_their_places(tmp_path: Path, output: Store) -> None:
    files = list(samples(range(5)))
    put(tmp_path / "in", "a/0.tar", tar_of(files))
    put(tmp_path / "in", "a/1.tar", tar_of(samples(range(5, 7))))
    listed(tmp_path / "in", output)
    write_rows(output, _000000001=b"one", _000000003=JPEG)
    assert commit(output, tmp_path / "in") == (0, 0)
    new = {"000000001.jpg": b"one", "000000003.jpg": JPEG}
    assert contents(output.read("images/a/0.tar")) == [(name, new.get(name, data)) for name, data in files]
    assert output.read("images/a/1.tar") == (tmp_path / "in/a/1.tar").read_bytes()
    rows = rows_of(output)
    for uri, row in rows.items():
        name = uri.partition("#")[2]
        assert row["output"] == f"images/{uri}"
        assert read_output(output, row) == new.get(name, dict([*files, *samples(range(5, 7))])[name])
    assert keys(output, "state/v1") == []


def test_a_container_is_written_once_all_of_its_images_have_rows(tmp_path: Path, output: Store) -> None:
    put(tmp_path / "in", "0.tar", tar_of(samples(range(5))))
    listed(tmp_path / "in", output)
    write_rows(output, _000000001=b"one")
    (part,) = (key for key in keys(output, FIRST.all_parts) if key.endswith(".parquet"))
    whole = read_parquet(output, part).cast(PUBLISHED)
    write_part(output, FIRST, 1, 0, 0, whole.slice(0, 3))
    assert commit(output, tmp_path / "in") == (2, 0)
    assert keys(output, "images") == []
    assert read_output(output, rows_of(output)["0.tar#000000001.jpg"]) == b"one"
    write_part(output, FIRST, 2, 0, 3, whole.slice(3))
    assert commit(output, tmp_path / "in") == (0, 0)
    assert dict(contents(output.read("images/0.tar")))["000000001.jpg"] == b"one"
    assert keys(output, "state/v1") == []


def test_images_that_are_made_again_go_into_the_container_that_is_there(tmp_path: Path, output: Store) -> None:
    put(tmp_path / "in", "0.tar", tar_of(samples(range(3))))
    listed(tmp_path / "in", output)
    write_rows(output, _000000001=b"one")
    commit(output, tmp_path / "in")
    again = read_parquet(output, FIRST.rows(0)).cast(PUBLISHED).to_pylist()
    (row,) = (row for row in again if row["uri"].endswith("2.jpg"))
    output.write(f"{FIRST.parts(0)}/2.bin", b"two")
    row |= {"status": "cleaned", "output": f"{FIRST.parts(0)}/2.bin", "output_offset": 0, "output_size": 3}
    row |= {"output_sha256": hashlib.sha256(b"two").hexdigest()}
    write_part(output, FIRST, 2, 0, 2, pa.Table.from_pylist([row], PUBLISHED))
    assert commit(output, tmp_path / "in") == (0, 0)
    files = dict(contents(output.read("images/0.tar")))
    assert (files["000000001.jpg"], files["000000002.jpg"]) == (b"one", b"two")


def test_a_cleaned_image_whose_bytes_are_gone_counts_as_missing(tmp_path: Path, output: Store) -> None:
    put(tmp_path / "in", "0.tar", tar_of(samples(range(3))))
    listed(tmp_path / "in", output)
    write_rows(output, _000000001=b"one")
    output.write(f"{FIRST.parts(0)}/1.bin", b"two")
    assert commit(output, tmp_path / "in") == (1, 0)
    assert keys(output, "images") == []
    assert pending_rows(output, FIRST, 0, [], "none").column("row").to_pylist() == [1]


def test_a_container_that_changed_after_the_listing_is_not_written_and_its_rows_say_so(
    tmp_path: Path, output: Store
) -> None:
    for name in ("0.tar", "1.tar"):
        put(tmp_path / "in", name, tar_of(samples(range(2))))
    listed(tmp_path / "in", output)
    write_rows(output, _000000001=b"one")
    put(tmp_path / "in", "1.tar", tar_of(samples(range(9))))
    assert commit(output, tmp_path / "in") == (0, 0)
    assert keys(output, "images") == ["images/0.tar"]
    reasons = {uri: (row["status"], row["reason"], row["output"]) for uri, row in rows_of(output).items()}
    assert reasons["1.tar#000000000.jpg"] == ("error", "source_changed", None)
    assert reasons["1.tar#000000001.jpg"] == ("error", "source_changed", None)
    assert reasons["0.tar#000000001.jpg"] == ("cleaned", None, "images/0.tar#000000001.jpg")


def cut_tar() -> bytes:
    return tar_of(samples(range(4)))[:-11_000]


@pytest.mark.parametrize("keep", [True, False])
def test_a_broken_tar_has_a_row_and_what_could_be_read_or_is_not_written(
    tmp_path: Path, output: Store, *, keep: bool
) -> None:
    put(tmp_path / "in", "0.tar", cut_tar())
    put(tmp_path / "in", "1.tar", b"this is no tar")
    listed(tmp_path / "in", output)
    write_rows(output, _000000001=b"one")
    assert commit(output, tmp_path / "in", keep_broken=keep) == (0, 0)
    rows = rows_of(output)
    assert {uri for uri, row in rows.items() if row["status"] == Status.ERROR} == {"0.tar#", "1.tar#"}
    assert keys(output, "images") == (["images/0.tar"] if keep else [])
    if keep:
        names = [name for name, _ in contents(output.read("images/0.tar"))]
        assert names[:6] == [name for name, _ in samples(range(2))]
        assert dict(contents(output.read("images/0.tar")))["000000001.jpg"] == b"one"
    else:
        assert {row["output"] for row in rows.values()} == {None}


def test_a_sidecar_follows_each_image_of_a_tar(tmp_path: Path, output: Store) -> None:
    put(tmp_path / "in", "0.tar", tar_of(samples(range(2))))
    listed(tmp_path / "in", output)
    write_rows(output, _000000001=b"one")
    commit(output, tmp_path / "in", sidecars=True)
    files = contents(output.read("images/0.tar"))
    order = [f"00000000{key}.{kind}" for key in (0, 1) for kind in ("jpg", "occpipe.json", "json", "txt")]
    assert [name for name, _ in files] == order
    row = json.loads(dict(files)["000000001.occpipe.json"])
    assert (row["uri"], row["status"]) == ("0.tar#000000001.jpg", "cleaned")
    for row in rows_of(output).values():
        assert read_output(output, row) == (b"one" if "1.jpg" in row["uri"] else picture(0))


def test_a_parquet_file_is_written_with_cleaned_images_in_their_rows(tmp_path: Path, output: Store) -> None:
    images: Sequence[bytes | None] = [picture(number, 32) for number in range(5)]
    table = datasets_table(list(images), caption=[str(row) for row in range(5)])
    write_parquet(tmp_path / "in" / "a.parquet", table, row_group_size=2)
    write_parquet(tmp_path / "in" / "b.parquet", table.slice(0, 2))
    listed(tmp_path / "in", output)
    write_rows(output, _3=b"three")
    assert commit(output, tmp_path / "in") == (0, 0)
    file = pq.ParquetFile(io.BytesIO(output.read("images/a.parquet")))
    assert [file.metadata.row_group(group).num_rows for group in range(3)] == [2, 2, 1]
    read = file.read()
    assert read.schema.equals(table.schema, check_metadata=True)
    assert [item["bytes"] for item in read.column("image").to_pylist()] == [*images[:3], b"three", images[4]]
    assert output.read("images/b.parquet") == (tmp_path / "in/b.parquet").read_bytes()
    rows = rows_of(output)
    assert read_output(output, rows["a.parquet#3"]) == b"three"
    assert read_output(output, rows["a.parquet#4"]) == images[4]


def list_loose(folder: Path, output: Store, images: Sequence[bytes]) -> None:
    for number, data in enumerate(images):
        put(folder, f"a/{number}.jpg", data)
    corpus = open_corpus(str(folder), config.Corpus())
    list(list_corpus(corpus, output, 8_192, None, ThreadPoolExecutor, lambda _: None))


def write_loose_rows(output: Store, images: Sequence[bytes], cleaned: dict[int, bytes], errors: Sequence[int]) -> None:
    rows: list[Row] = []
    blob = b"".join(cleaned.values())
    output.write(f"{FIRST.parts(0)}/1.bin", blob)
    for index, item in enumerate(read_parquet(output, manifest_key(0)).to_pylist()):
        source = images[int(item["uri"].removeprefix("a/").removesuffix(".jpg"))]
        row: Row = {"image_id": image_id(item["uri"]), "config": "c", "format": "JPEG", **item, "status": "unchanged"}
        row["sha256"] = hashlib.sha256(source).hexdigest()
        if index in errors:
            row |= {"status": "error", "reason": "truncated"}
        elif (data := cleaned.get(index)) is not None:
            row |= {"status": "cleaned", "output": f"{FIRST.parts(0)}/1.bin", "output_offset": blob.index(data)}
            row |= {"output_size": len(data), "output_sha256": hashlib.sha256(data).hexdigest()}
        rows.append({field: row.get(field) for field in PUBLISHED.names})
    write_part(output, FIRST, 1, 0, 0, pa.Table.from_pylist(rows, PUBLISHED))


@pytest.mark.parametrize(
    ("tar_images", "unchanged", "files", "written"),
    [
        (4, True, [f"images/shard-000000-{number:05d}.tar" for number in range(3)], 9),
        (4, False, [f"images/shard-000000-{number:05d}.tar" for number in range(3)], 2),
        (None, True, ["images/shard-000000.parquet"], 9),
    ],
)
def test_loose_images_are_packed_with_their_rows(
    tmp_path: Path, output: Store, tar_images: int | None, files: list[str], written: int, *, unchanged: bool
) -> None:
    images = [picture(number, 32) for number in range(10)]
    list_loose(tmp_path / "in", output, images)
    write_loose_rows(output, images, {1: b"first", 8: b"second"}, errors=[5])
    pack = Pack(str(tmp_path / "in"), tar_images, unchanged)
    assert commit_shard(output, FIRST, 0, pack)[1:] == (0, 0)
    assert keys(output, "images") == files
    rows = rows_of(output)
    assert sum(row["output"] is not None for row in rows.values()) == written
    for number, image in enumerate(images):
        row = rows[f"a/{number}.jpg"]
        if row["output"] is not None:
            assert read_output(output, row) == {1: b"first", 8: b"second"}.get(number, image)
        else:
            assert number == 5 or not unchanged
    if tar_images:
        packed = contents(output.read(files[0]))
        assert [name for name, _ in packed][:2] == (
            ["000000000000.jpg", "000000000000.json"] if unchanged else ["000000000001.jpg", "000000000001.json"]
        )
        assert json.loads(packed[1][1])["uri"] == f"a/{0 if unchanged else 1}.jpg"
    else:
        table = pq.read_table(io.BytesIO(output.read(files[0])))
        assert [item["path"] for item in table.column("image").to_pylist()] == table.column("uri").to_pylist()
    assert keys(output, "state/v1") == []


def test_a_loose_image_that_changed_after_it_was_seen_is_not_packed(tmp_path: Path, output: Store) -> None:
    images = [picture(number, 32) for number in range(3)]
    list_loose(tmp_path / "in", output, images)
    write_loose_rows(output, images, {}, errors=[])
    put(tmp_path / "in", "a/1.jpg", images[0])
    (tmp_path / "in" / "a" / "2.jpg").unlink()
    commit_shard(output, FIRST, 0, Pack(str(tmp_path / "in"), 10))
    reasons = {uri: row["reason"] for uri, row in rows_of(output).items()}
    assert reasons == {"a/0.jpg": None, "a/1.jpg": "source_changed", "a/2.jpg": "missing"}
    assert len(contents(output.read("images/shard-000000-00000.tar"))) == 2
