"""Tars and Parquet files with images, whole and broken."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as Pil

JPEG = b"\xff\xd8 no picture, but of the size of one \xff\xd9" * 20


def picture(number: int, side: int = 64, kind: str = "JPEG") -> bytes:
    """A small picture of noise that no other number has."""
    rgb = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    sink = io.BytesIO()
    Pil.fromarray(rgb).save(sink, kind)
    return sink.getvalue()


def tar_of(files: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar with these files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def contents(data: bytes) -> list[tuple[str, bytes]]:
    """Names and bytes of the files of a tar, as `tarfile` reads them."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar if info.isfile()]  # type: ignore[union-attr]


def samples(numbers: Iterable[int], images: Iterable[bytes] | None = None) -> Iterator[tuple[str, bytes]]:
    """The files of samples as img2dataset writes them: an image, its caption and its facts."""
    given = iter(images) if images is not None else None
    for number in numbers:
        data = picture(number) if given is None else next(given)
        yield f"{number:09d}.jpg", data
        yield f"{number:09d}.json", json.dumps({"key": f"{number:09d}", "status": "success"}).encode()
        yield f"{number:09d}.txt", f"a caption of {number}".encode()


def datasets_table(images: list[bytes | None], **columns: list[Any]) -> pa.Table:
    """Images as `datasets` writes them, with other columns."""
    structs = [None if data is None else {"bytes": data, "path": f"{row}.jpg"} for row, data in enumerate(images)]
    features = {"image": {"_type": "Image"}, **{name: {"dtype": "string", "_type": "Value"} for name in columns}}
    image = pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table({"image": image, **columns}).replace_schema_metadata(about)


def write_parquet(path: Path, table: pa.Table, **options: Any) -> bytes:
    """Write a table, and return the bytes of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path.read_bytes()
