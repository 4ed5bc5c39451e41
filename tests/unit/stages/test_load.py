"""load: what stands in a row of a photo that is fine, and of one that is not."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Pil

from occpipe.core.config import Corpus
from occpipe.core.schemas import PIPELINE
from occpipe.io.images import Limits, decode
from occpipe.stages.load import Load
from tests.helpers.scenes import encoded, gradient
from tests.helpers.stages import keep_to_declarations


def loaded(folder: Path, files: dict[str, bytes | None], corpus: Corpus | None = None, **listed: Any) -> list[Any]:
    """The rows of some files, None for one that is not there; `listed` are sizes by stem, by default the true ones."""
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    sizes = [listed.get(Path(name).stem, None if data is None else len(data)) for name, data in files.items()]
    columns = {"size": pa.array(sizes, PIPELINE["size"]), "etag": pa.nulls(len(files), pa.string())}
    batch = pa.table({"uri": [*files], **columns, "row": pa.array(range(len(files)))})
    rows: list[Any] = keep_to_declarations([Load(str(folder), corpus or Corpus(), 64, 4)], batch).to_pylist()
    assert [row["row"] for row in rows] == [*range(len(files))], "in their order"
    return rows


def turned(rgb: np.ndarray) -> bytes:
    """A JPEG that is stored on its side."""
    exif, data = Pil.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Pil.fromarray(rgb).save(data, "JPEG", exif=exif)
    return data.getvalue()


def test_pixels_are_those_of_the_decoder_at_the_size_of_the_model(tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {
        "small.png": encoded(gradient(48, 40), "PNG"),
        "large.jpg": encoded(gradient(300, 400)),
        "turned.jpg": turned(gradient(48, 60)),
    }
    rows = loaded(tmp_path, files)
    sizes = [[row[name] for name in ("width", "height", "mask_width", "mask_height")] for row in rows]
    assert sizes == [[40, 48, 40, 48], [400, 300, 64, 48], [48, 60, 48, 60]]
    assert [row["format"] for row in rows] == ["PNG", "JPEG", "JPEG"]
    for row, data in zip(rows, files.values(), strict=True):
        assert data is not None
        assert row["status"] is row["reason"] is row["error"] is None
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        pixels = np.frombuffer(row["pixels"], np.uint8).reshape(row["mask_height"], row["mask_width"], 3)
        assert (pixels == decode(data, Limits(), 64)).all()


def test_what_cannot_be_loaded_is_a_row_with_its_reason(tmp_path: Path) -> None:
    good = encoded(gradient(48, 40), "PNG")
    files = {"text.jpg": b"no picture", "gone.jpg": None, "../out.jpg": None, "empty.png": b"", "fine.png": good}
    rows = loaded(tmp_path, files, Corpus(max_bytes=100_000))
    assert [row["reason"] for row in rows] == ["not_an_image", "missing", "unsafe_path", "empty_file", None]
    assert [row["status"] for row in rows] == ["error"] * 4 + [None]
    assert {row["error"]["stage"] for row in rows[:4]} == {"load"}
    assert rows[0]["sha256"] == hashlib.sha256(b"no picture").hexdigest(), "its bytes are known"
    assert rows[0]["pixels"] is rows[0]["width"] is rows[1]["sha256"] is None


def test_a_size_that_was_listed_is_a_limit_and_then_that_of_the_bytes(tmp_path: Path) -> None:
    data = encoded(gradient(48, 40), "PNG")
    files: dict[str, bytes | None] = {"a.png": data, "b.png": data, "c.png": data}
    rows = loaded(tmp_path, files, Corpus(max_bytes=len(data)), a=10**9, b=7, c=None)
    assert [row["reason"] for row in rows] == ["too_many_bytes", None, None]
    assert [row["size"] for row in rows] == [10**9, len(data), len(data)]
    (row,) = loaded(tmp_path, {"d.png": data + b"\0"}, Corpus(max_bytes=len(data)), d=None)
    assert (row["reason"], row["size"]) == ("too_many_bytes", None)


def test_a_closed_row_is_not_read(tmp_path: Path) -> None:
    batch = pa.table({"uri": ["gone.jpg"], "size": pa.array([1], PIPELINE["size"]), "status": ["error"]})
    rows = Load(str(tmp_path), Corpus(), 64, 4)(batch)
    assert rows.column("status").to_pylist() == ["error"]
    assert rows.column("reason").to_pylist() == [None]


@pytest.mark.parametrize("limit", [1, 2_000])
def test_headers_are_checked_before_pixels(tmp_path: Path, limit: int) -> None:
    (row,) = loaded(tmp_path, {"a.png": encoded(gradient(48, 40), "PNG")}, Corpus(max_pixels=limit))
    assert row["reason"] == (None if limit > 48 * 40 else "too_many_pixels")
