"""write: which images lie below OUTPUT afterwards, and what their rows say."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from occpipe.core.schemas import PIPELINE
from occpipe.io.storage import open_store
from occpipe.io.storage.local import LocalStore
from occpipe.stages.close_scan import CloseScan
from occpipe.stages.write import Write
from tests.helpers.stages import keep_to_declarations

BYTES = b"the bytes of a photo"
SHA256 = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in "abc":
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(BYTES)
    return tmp_path / "photos"


def row(photos: Path, name: str, status: str | None, **more: Any) -> dict[str, Any]:
    entry = open_store(str(photos)).find(f"{name}.jpg")
    listed = {} if entry is None else {"size": entry.size, "etag": entry.etag, "sha256": SHA256}
    return {"uri": f"{name}.jpg", "status": status, **listed, **more}


def written(
    photos: Path, *rows: dict[str, Any], unchanged: str = "copy", scan: bool = False, blobs: str | None = None
) -> list[Any]:
    names = ("uri", "shard", "size", "etag", "sha256", "lost", "data", "earlier", "status", "reason", "error")
    batch = pa.table({name: pa.array([row.get(name) for row in rows], PIPELINE[name]) for name in names})
    write = Write(str(photos), str(photos.parent / "out"), "images", unchanged, 2, blobs)
    table = keep_to_declarations([CloseScan() if scan else write], batch)
    assert "earlier" not in table.column_names
    assert scan or "data" not in table.column_names
    made: list[Any] = table.to_pylist()
    return made


def files(photos: Path) -> dict[str, bytes]:
    out = photos.parent / "out"
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_cleaned_ones_are_written_unchanged_ones_copied_and_others_neither(photos: Path) -> None:
    failed = {"reason": "truncated", "error": {"stage": "load", "type": "x", "message": "y"}}
    clean = row(photos, "b", "cleaned", data=b"filled", etag="of another time", sha256="0")
    rows = written(photos, row(photos, "a", "unchanged"), clean, row(photos, "c", "error", **failed))
    assert files(photos) == {"images/a.jpg": BYTES, "images/b.jpg": b"filled"}
    assert [r["output"] for r in rows] == ["images/a.jpg", "images/b.jpg", None]
    assert [r["output_size"] for r in rows] == [len(BYTES), 6, None]
    assert [r["output_sha256"] for r in rows] == [SHA256, hashlib.sha256(b"filled").hexdigest(), None]
    assert [r["status"] for r in rows] == ["unchanged", "cleaned", "error"]
    assert rows[2]["reason"] == "truncated"


def test_unchanged_ones_may_be_left_out(photos: Path) -> None:
    rows = written(photos, row(photos, "a", "unchanged"), row(photos, "b", "cleaned", data=b"filled"), unchanged="skip")
    assert [r["output"] for r in rows] == [None, "images/b.jpg"]
    assert files(photos) == {"images/b.jpg": b"filled"}


def test_an_unchanged_image_passes_through_the_store_and_not_through_us(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("occpipe.stages.write.read_same_image", None)
    (made,) = written(photos, row(photos, "a", "unchanged"))
    assert (made["status"], files(photos)) == ("unchanged", {"images/a.jpg": BYTES})


def test_a_photo_that_was_replaced_is_an_error_and_is_not_copied(photos: Path) -> None:
    before = [row(photos, name, "unchanged") for name in "abc"]
    (photos / "a.jpg").write_bytes(BYTES[:-1] + b"X")
    os.utime(photos / "b.jpg", (1, 1))
    (photos / "c.jpg").unlink()
    rows = written(photos, *before)
    assert [(r["status"], r["reason"], r["output"]) for r in rows] == [
        ("error", "source_changed", None),
        ("unchanged", None, "images/b.jpg"),  # another tag, the same bytes
        ("error", "missing", None),
    ]
    assert rows[0]["error"]["stage"] == "write"
    assert files(photos) == {"images/b.jpg": BYTES}


def test_without_a_tag_the_bytes_are_compared(photos: Path) -> None:
    rows = [row(photos, name, "unchanged", etag="") for name in "ab"]
    (photos / "b.jpg").write_bytes(BYTES[:-1] + b"X")
    assert [r["reason"] for r in written(photos, *rows)] == [None, "source_changed"]
    assert files(photos) == {"images/a.jpg": BYTES}


def test_a_scan_writes_nothing(photos: Path) -> None:
    rows = written(photos, row(photos, "a", None), row(photos, "b", "unchanged"), scan=True)
    assert [r["status"] for r in rows] == ["scanned", "unchanged"]
    assert {r["output"] for r in rows} == {None}
    assert not (photos.parent / "out").exists()


def test_the_image_of_an_earlier_run_is_deleted_where_the_row_has_none_now(photos: Path) -> None:
    out = open_store(str(photos.parent / "out"))
    for key in ("images/a.jpg", "images/b.jpg", "images/c.jpg"):
        out.write(key, b"old")
    (photos.parent / "secret").write_bytes(b"not ours")
    error = {"stage": "load", "type": "x", "message": "y"}
    rows = written(
        photos,
        row(photos, "a", "error", earlier="images/a.jpg", reason="missing", error=error),
        row(photos, "b", "cleaned", earlier="images/b.jpg", data=b"new"),
        row(photos, "c", "error", earlier="../secret", reason="missing", error=error),
    )
    assert files(photos) == {"images/b.jpg": b"new", "images/c.jpg": b"old"}
    assert [r["output"] for r in rows] == [None, "images/b.jpg", None]
    assert (photos.parent / "secret").exists()


def test_no_row_without_an_earlier_image_costs_a_delete(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStore, "delete", None)
    error = {"stage": "load", "type": "x", "message": "y"}
    (made,) = written(photos, row(photos, "a", "error", reason="missing", error=error))
    assert made["reason"] == "missing"


def test_a_stale_image_that_cannot_be_deleted_stays_in_its_row(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: LocalStore, key: str) -> None:
        raise PermissionError(key)

    monkeypatch.setattr(LocalStore, "delete", refuse)
    error = {"stage": "load", "type": "x", "message": "y"}
    (made,) = written(photos, row(photos, "a", "error", earlier="images/a.jpg", reason="missing", error=error))
    assert (made["reason"], made["error"]["stage"]) == ("forbidden", "write"), "so that the next run does it again"
    assert made["output"] == "images/a.jpg"


def test_an_image_that_cannot_be_written_is_an_error(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: LocalStore, key: str, data: bytes) -> None:
        raise PermissionError(key)

    monkeypatch.setattr(LocalStore, "write", refuse)
    (made,) = written(photos, row(photos, "a", "cleaned", data=b"filled"))
    assert (made["status"], made["reason"], made["output"]) == ("error", "forbidden", None)


def test_what_goes_into_containers_waits_in_one_object_and_nothing_is_deleted(photos: Path) -> None:
    rows = written(
        photos,
        row(photos, "a", "cleaned", shard=3, data=b"filled"),
        row(photos, "b", "unchanged", shard=3, earlier="images/0.tar#b.jpg"),
        row(photos, "c", "cleaned", shard=3, data=b"another"),
        blobs="state/v1/parts",
    )
    ((key, data),) = files(photos).items()
    assert data == b"filledanother"
    assert key.startswith("state/v1/parts/shard-000003/")
    where = [(r["output"], r["output_offset"], r["output_size"]) for r in rows]
    assert where == [(key, 0, 6), (None, None, None), (key, 6, 7)]
    assert rows[2]["output_sha256"] == hashlib.sha256(b"another").hexdigest()
