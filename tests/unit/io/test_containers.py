"""Tars and Parquet files: what is found in whole and broken ones, what is read of it, and copies."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from occpipe.io.containers import Member, index, place_of, read_member, split_uri
from occpipe.io.containers.parquet import SinkError, copy_parquet, image_column, reading
from occpipe.io.containers.place import Place
from occpipe.io.containers.tar import Stream, copy_tar
from occpipe.io.images import ImageError, ImageReason
from occpipe.io.storage import SourceChangedError, Store, TooLargeError, open_store
from tests.helpers.containers import JPEG, contents, datasets_table, picture, samples, tar_of
from tests.hostile.containers import BROKEN, PARQUET, SECOND, TARS, WHOLE, Case, behind, parquet_of, pax

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = f"{'deep/' * 40}photo.jpg"


def is_image(name: str) -> bool:
    return name.lower().endswith((".jpg", ".png"))


def indexed(data: bytes, key: str = "a.tar", column: str | None = None) -> list[Member]:
    return index(io.BytesIO(data), key, len(data), "tag", column, is_image)


def copied(data: bytes, replace: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    sink = io.BytesIO()
    copy_tar(Stream(io.BytesIO(data), len(data)), sink, lambda member: replace.get(member.name))
    return sink.getvalue()


@pytest.mark.parametrize("case", TARS.values(), ids=TARS)
def test_a_broken_tar_has_its_readable_images_and_a_fault_with_a_reason(case: Case) -> None:
    members = indexed(case.data)
    found = [member for member in members if member.place.kind == "tar"]
    assert len(found) == case.images
    for member in found:
        start = int(member.place.where)
        assert case.data[start : start + (member.size or 0)] == JPEG
    ((name, where),) = [(member.name, member.place.where) for member in members if member.place.kind == "fault"]
    assert name == case.name
    assert where.startswith(f"{case.reason}/")
    assert case.says in where


@pytest.mark.parametrize("case", TARS.values(), ids=TARS)
def test_the_copy_of_a_broken_tar_is_whole_and_has_what_could_be_read(case: Case) -> None:
    files = contents(copied(case.data))
    assert [data for name, data in files if is_image(name)] == [JPEG] * case.images
    for name, _ in files:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
    assert len({name for name, _ in files}) == len(files)


@pytest.mark.parametrize("case", PARQUET.values(), ids=PARQUET)
def test_a_broken_parquet_file_is_one_fault_with_a_reason(case: Case) -> None:
    (member,) = indexed(case.data, "a.parquet")
    assert (member.name, member.place.kind) == ("", "fault")
    assert member.place.where.startswith(f"{case.reason}/")
    assert case.says in member.place.where


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", ["a.jpg", "./a.jpg", "Zürich/猫.jpg", "with space.jpg", LONG])
def test_images_are_found_by_their_names_in_each_form_of_tar(name: str, form: int) -> None:
    name = LONG[:200] + ".jpg" if name == LONG and form == tarfile.USTAR_FORMAT else name
    data = tar_of([(name, JPEG), ("a.txt", b"a"), ("b.PNG", b"B")], form)
    first, second = indexed(data)
    assert (first.name, first.size, second.name, second.size) == (name, len(JPEG), "b.PNG", 1)
    assert data[int(first.place.where) :].startswith(JPEG)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_copy_without_a_change_has_the_same_bytes(form: int) -> None:
    data = tar_of([*samples(range(3)), ("d/x.jpg", b""), (LONG[1:], b"1")], form)
    assert copied(data) == data


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("new", [b"", b"new", JPEG * 9], ids=["empty", "smaller", "larger"])
def test_a_replaced_member_keeps_its_name_and_place_and_all_others_their_bytes(new: bytes, form: int) -> None:
    files = [(LONG[1:], JPEG), *samples(range(3)), ("Zürich.jpg", JPEG), ("end.txt", b"end")]
    data = copied(tar_of(files, form), {"000000001.jpg": new, "Zürich.jpg": new})
    expected = [(name, new if name in ("000000001.jpg", "Zürich.jpg") else old) for name, old in files]
    assert contents(data) == expected
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {info.mtime for info in tar} == {1_700_000_000}
    assert len(data) % tarfile.RECORDSIZE == 0


def test_a_replaced_member_whose_size_stood_in_a_pax_header_has_its_new_size() -> None:
    data = copied(behind(pax("x.jpg", size=str(len(JPEG)), comment="c")), {"x.jpg": b"new"})
    assert contents(data) == [("a.jpg", JPEG), ("x.jpg", b"new")]


def test_a_copy_tells_where_each_member_is_and_takes_new_files_behind_them() -> None:
    sink = io.BytesIO()
    places = copy_tar(
        Stream(io.BytesIO(WHOLE), len(WHOLE)),
        sink,
        lambda member: b"new" if member.name == "b.jpg" else None,
        lambda member: ("b.occpipe.json", b"{}") if member.name == "b.jpg" else None,
    )
    data = sink.getvalue()
    names = ["a.jpg", "a.json", "b.jpg", "b.occpipe.json", "c.jpg"]
    assert contents(data) == list(zip(names, [JPEG, b"{}", b"new", b"{}", JPEG], strict=True))
    a, _, b, c = places.values()
    assert a == 512
    assert (data[b : b + 3], data[c : c + len(JPEG)]) == (b"new", JPEG)


class Counting(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def test_what_a_large_member_holds_is_not_read_for_an_index() -> None:
    large = bytes(50_000_000)
    file = Counting(tar_of([("a.jpg", JPEG), ("video.mp4", large), ("b.jpg", JPEG)]))
    members = index(file, "a.tar", len(file.getvalue()), "tag", None, is_image)
    assert [member.name for member in members] == ["a.jpg", "b.jpg"]
    assert file.count < 10_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def put(store: Store, key: str, data: bytes) -> list[Member]:
    store.write(key, data)
    entry = store.find(key)
    assert entry is not None
    return index(io.BytesIO(data), key, len(data), entry.etag, None, is_image)


@pytest.mark.parametrize("ahead", [False, True])
def test_an_image_of_a_tar_is_read_from_its_place(store: Store, *, ahead: bool) -> None:
    images = [picture(number, 300) for number in range(40)]  # 200 kB each, so that some lie over the edges of chunks
    members = put(store, "a.tar", tar_of([(f"{number}.jpg", data) for number, data in enumerate(images)]))
    for member, image in zip(members, images, strict=True):
        read = read_member(store, f"a.tar#{member.name}", member.size, member.place, 10**6, ahead=ahead)
        assert read == image


@pytest.mark.parametrize("ahead", [False, True])
def test_an_image_of_a_parquet_file_is_read_by_its_row(store: Store, *, ahead: bool) -> None:
    images = [picture(number) for number in range(100)]
    data = parquet_of(datasets_table([*images]), row_group_size=40)
    members = put(store, "a.parquet", data)
    assert len(members) == 100
    for row in (0, 31, 32, 39, 40, 79, 80, 99, 1):
        place = members[row].place
        assert read_member(store, f"a.parquet#{row}", None, place, 10**6, ahead=ahead) == images[row]
    with pytest.raises(ImageError, match="there is no row 100"):
        read_member(store, "a.parquet#100", None, members[0].place, 10**6, ahead=ahead)


@pytest.mark.parametrize("key", ["a.tar", "a.parquet"])
def test_an_image_of_a_container_that_was_replaced_is_not_read(store: Store, key: str) -> None:
    data = tar_of([("0", JPEG)]) if key == "a.tar" else parquet_of(pa.table({"image": [JPEG]}))
    store.write(key, data)
    place = Place("tar", "512", "old tag") if key == "a.tar" else Place("parquet", "image", "old tag")
    with pytest.raises(SourceChangedError, match="and was old tag"):
        read_member(store, f"{key}#0", len(JPEG), place, 10**6)


def test_no_image_over_the_limit_is_read(store: Store) -> None:
    (member,) = put(store, "a.tar", tar_of([("a.jpg", JPEG)]))
    with pytest.raises(TooLargeError):
        read_member(store, "a.tar#a.jpg", member.size, member.place, len(JPEG) - 1)
    (member,) = put(store, "a.parquet", parquet_of(pa.table({"image": [JPEG]})))
    with pytest.raises(TooLargeError):
        read_member(store, "a.parquet#0", None, member.place, len(JPEG) - 1)


@pytest.mark.parametrize(
    ("struct", "reason", "says"),
    [
        (None, ImageReason.EMPTY_FILE, "no image"),
        ({"bytes": None, "path": None}, ImageReason.EMPTY_FILE, "no image"),
        ({"bytes": None, "path": "elsewhere/a.jpg"}, ImageReason.MISSING, "elsewhere/a.jpg"),
    ],
)
def test_a_row_without_bytes_says_so(
    store: Store, struct: dict[str, str | None] | None, reason: ImageReason, says: str
) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (member,) = put(store, "a.parquet", parquet_of(pa.table({"image": pa.array([struct], kind)})))
    with pytest.raises(ImageError, match=says) as caught:
        read_member(store, "a.parquet#0", None, member.place, 10**6)
    assert caught.value.reason is reason


def test_a_row_group_of_noise_is_a_broken_container_and_the_others_are_read(store: Store) -> None:
    images = [JPEG[row:] + JPEG for row in range(20)]
    data = bytearray(parquet_of(pa.table({"image": images}), row_group_size=10, use_dictionary=False))
    second = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0).data_page_offset
    data[second : second + 400] = b"\x5a" * 400
    members = put(store, "a.parquet", bytes(data))
    assert read_member(store, "a.parquet#9", None, members[9].place, 10**6, ahead=True) == images[9]
    for ahead in (False, True):
        with pytest.raises(ImageError) as caught:
            read_member(store, "a.parquet#15", None, members[15].place, 10**6, ahead=ahead)
        assert caught.value.reason is ImageReason.BROKEN_CONTAINER


BINARY = pa.binary()
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("columns", "name", "chosen"),
    [
        ({"caption": pa.string(), "image": STRUCT}, None, "image"),
        ({"image": pa.large_binary()}, None, "image"),
        ({"embedding": BINARY, "JPG": BINARY}, None, "JPG"),
        ({"mask": STRUCT, "image": STRUCT}, None, "image"),
        ({"before": STRUCT, "after": STRUCT}, None, "before"),
        ({"pixels": BINARY}, None, "pixels"),
        ({"one": BINARY, "two": BINARY}, None, None),
        ({"one": BINARY, "two": BINARY}, "two", "two"),
        ({"image": STRUCT}, "other", None),
        ({"image": pa.string()}, "image", None),
    ],
)
def test_the_column_of_images_is_found(columns: dict[str, pa.DataType], name: str | None, chosen: str | None) -> None:
    assert image_column(pa.schema(list(columns.items())), name) == chosen


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "none"])
@pytest.mark.parametrize("kind", ["struct", "binary", "large_binary"])
def test_a_copy_of_a_parquet_file_keeps_all_but_the_replaced_images(kind: str, codec: str) -> None:
    images: list[bytes | None] = [picture(row, 32) for row in range(25)]
    images[7] = None
    table = datasets_table(images, caption=[f"a caption of {row % 3}" for row in range(25)])
    if kind != "struct":
        table = table.set_column(0, "image", pa.array(images, getattr(pa, kind)()))
    source = parquet_of(table, row_group_size=10, compression=codec)
    new = {3: b"three", 12: b"twelve", 24: b"last"}
    sink = io.BytesIO()
    with reading(io.BytesIO(source)) as file:
        copy_parquet(file, sink, "image", new.get, list(new))
    before, after = pq.ParquetFile(io.BytesIO(source)), pq.ParquetFile(io.BytesIO(sink.getvalue()))
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    assert after.schema_arrow.metadata[b"huggingface"] == before.schema_arrow.metadata[b"huggingface"]
    groups = [[file.metadata.row_group(group) for group in range(3)] for file in (before, after)]
    assert [[group.num_rows for group in side] for side in groups] == [[10, 10, 5]] * 2
    packed, was = ([group.column(column).compression for group in side for column in range(2)] for side in groups)
    assert packed == was
    assert after.read(["caption"]).equals(before.read(["caption"]))
    values = after.read(["image"]).column(0).to_pylist()
    data = [value["bytes"] if isinstance(value, dict) else value for value in values]
    assert data == [new.get(row, image) for row, image in enumerate(images)]
    if kind == "struct":
        assert (values[3]["path"], values[7]) == ("3.jpg", None)


@pytest.mark.parametrize(
    "place", [Place("tar", "1536", "a:b@c"), Place("parquet", "a:b/c@d", "x"), Place("tar", "0", "")]
)
def test_a_place_is_read_from_the_tag_it_was_written_to(place: Place) -> None:
    assert place_of(str(place)) == place


def test_no_tag_of_a_store_is_a_place() -> None:
    assert [place_of(tag) for tag in (None, "", "18eb983ee31d4f5a-1a7ac", "d41d8cd98f00b204-12", "tar@")] == [None] * 5


def test_a_uri_has_a_container_and_a_name() -> None:
    assert split_uri("a/b.tar#c/d#e.jpg") == ("a/b.tar", "c/d#e.jpg")
    assert split_uri("b.tar#") == ("b.tar", "")
    assert BROKEN == ImageReason.BROKEN_CONTAINER
    assert SECOND % 512 == 0


def test_a_store_that_cannot_be_written_is_no_broken_parquet_file() -> None:
    class Full:
        def write(self, data: bytes | memoryview, /) -> int:
            raise OSError("the disk is full")

    data = parquet_of(pa.table({"image": [JPEG]}))
    with pytest.raises(SinkError) as caught, reading(io.BytesIO(data)) as file:
        copy_parquet(file, Full(), "image", lambda _: b"new", [0])
    assert str(caught.value.cause) == "the disk is full"
