"""Loose images packed into containers as a shard is committed: a few large objects in place of one for each image.

    tar:N      images/shard-000042-00003.tar   N places of the shard; KEY.jpg beside KEY.json, which is the row
    parquet    images/shard-000042.parquet     a column `image`, as `datasets` has it, beside those of the row

A place of the shard belongs to one container for good, so that containers can be made again one by one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from occpipe.core.schemas import PUBLISHED
from occpipe.core.types import Status
from occpipe.dataset.containers_commit import (
    GONE,
    IN_OUTPUT,
    NARROW,
    PACKED_COLUMN,
    PATIENCE_S,
    Row,
    cleaned_bytes,
    close,
    with_values,
)
from occpipe.dataset.layout import shard_name
from occpipe.io.containers.parquet import FileSink
from occpipe.io.containers.tar import TarSink
from occpipe.io.containers.tar_headers import new_header
from occpipe.io.storage import SourceChangedError, Store, store_of, with_retries

AT_ONCE = 32
"""Images that are read side by side and are in memory at once, and rows of a row group."""
_ENDINGS = {"JPEG": "jpg", "TIFF": "tif"}
_ABOUT = [name for name in PUBLISHED.names if name not in IN_OUTPUT]
_IMAGE = pa.field(PACKED_COLUMN, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_SCHEMA = pa.schema([_IMAGE, *(PUBLISHED.field(name) for name in _ABOUT)])
"""Of the Parquet files; the metadata tells `datasets` that the struct is an image."""
_FEATURES = json.dumps({"info": {"features": {PACKED_COLUMN: {"_type": "Image"}}}})


@dataclass(frozen=True)
class Pack:
    """Packs the images below `root`, cleaned ones in their new form: `tar_images` places in a tar; None: Parquet.

    `unchanged`: unchanged images go in, too.
    """

    root: str
    tar_images: int | None
    unchanged: bool = True

    def __call__(self, output: Store, images: str, shard: int, rows: pa.Table) -> pa.Table:
        """Write the containers of all rows of a shard; see `occpipe.dataset.containers_commit.Containers`."""
        values = rows.select(NARROW).to_pylist()
        name = f"{images}/{shard_name(shard)}"
        if self.tar_images is None:
            write = partial(self._write_parquet, output, f"{name}.parquet", rows, values)
            with_retries(write, patience_s=PATIENCE_S)
        else:
            for number, start in enumerate(range(0, len(values), self.tar_images)):
                part = values[start : start + self.tar_images]
                about = rows.slice(start, self.tar_images).select(_ABOUT)
                write = partial(self._write_tar, output, f"{name}-{number:05d}.tar", shard, start, about, part)
                with_retries(write, patience_s=PATIENCE_S)
        return with_values(rows, values)

    def _write_tar(self, output: Store, key: str, shard: int, start: int, about: pa.Table, rows: list[Row]) -> None:
        places: dict[int, tuple[str, int, int]] = {}
        with output.writer(key) as sink:
            tar = TarSink(sink)
            for index, data in self._images(output, rows, start):
                stem, row = f"{shard:06d}{start + index:06d}", rows[index]
                ending = _ENDINGS.get(row["format"], str(row["format"]).lower())
                begin = tar.add(new_header(f"{stem}.{ending}", len(data)), [data])
                places[index] = f"{key}#{stem}.{ending}", begin, len(data)
                facts = json.dumps(about.slice(index, 1).to_pylist()[0]).encode()
                tar.add(new_header(f"{stem}.json", len(facts)), [facts])
            tar.end()
        _set(rows, places)

    def _write_parquet(self, output: Store, key: str, whole: pa.Table, rows: list[Row]) -> None:
        places: dict[int, tuple[str, int, int]] = {}
        schema = _SCHEMA.with_metadata({"huggingface": _FEATURES})
        with output.writer(key) as sink, pq.ParquetWriter(FileSink(sink), schema, compression="zstd") as writer:
            written = self._images(output, rows, 0)
            while some := list(islice(written, AT_ONCE)):
                for place, (index, data) in enumerate(some, len(places)):
                    places[index] = f"{key}#{place}", place, len(data)
                images = [{"bytes": data, "path": rows[index]["uri"]} for index, data in some]
                about = whole.select(_ABOUT).take(pa.array([index for index, _ in some]))
                writer.write_table(about.add_column(0, _IMAGE, pa.array(images, _IMAGE.type)).cast(schema))
        _set(rows, places)

    def _images(self, output: Store, rows: list[Row], start: int) -> Iterator[tuple[int, bytes]]:
        """The images that are written, in their order; a source that is another one now makes its row an error row."""
        source = store_of(self.root)

        def read(index: int) -> bytes | None:
            row = rows[index]
            if row["status"] == Status.CLEANED:
                return cleaned_bytes(output, row, start + index)
            if row["status"] != Status.UNCHANGED or not self.unchanged:
                return None
            try:
                data = with_retries(lambda: source.read(row["uri"], row["size"]))
                if hashlib.sha256(data).hexdigest() != row["sha256"]:
                    raise SourceChangedError("its bytes are not those that were seen")
            except GONE as error:
                close(row, error)
                return None
            return data

        with ThreadPoolExecutor(AT_ONCE // 2) as pool:
            for first in range(0, len(rows), AT_ONCE):
                indices = range(first, min(first + AT_ONCE, len(rows)))
                for index, data in zip(indices, pool.map(read, indices), strict=True):
                    if data is not None:
                        yield index, data


def _set(rows: list[Row], places: dict[int, tuple[str, int, int]]) -> None:
    """Write the places of images into their rows, once their container is there."""
    for index, row in enumerate(rows):
        if index in places:
            sha256 = row["output_sha256"] if row["status"] == Status.CLEANED else row["sha256"]
            row.update(zip(IN_OUTPUT, (*places[index], sha256), strict=True))
        else:
            row.update(dict.fromkeys(IN_OUTPUT))
