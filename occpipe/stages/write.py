"""write: the image below OUTPUT; 1:1, on CPUs, bound by the network. Its row is written after it, in a part.

An unchanged image is copied by the store where that can be done, and does not pass through this process.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from occpipe.core.types import Status
from occpipe.dataset.layout import BLOB, shard_name
from occpipe.dataset.parquet import PATIENCE_S
from occpipe.io.storage import SourceChangedError, is_safe_key, store_of, with_retries
from occpipe.stages.load import read_same_image
from occpipe.stages.rows import Rows
from occpipe.stages.stage import Setup, Stage

_OUTPUT = ("output", "output_offset", "output_size", "output_sha256")


@dataclass(frozen=True)
class Write(Stage):
    """Writes images below the folder `images` of OUTPUT.

    An image that an earlier run wrote (`earlier`) is deleted where the row has none now. Where that fails, the row keeps
    its key, so that a later run deletes it. With `blobs`, images go into containers: the cleaned ones of a block wait
    there as one object, named after its bytes, until the commit takes them.
    """

    root: str
    output: str
    images: str
    unchanged: str
    threads: int
    blobs: str | None = None

    READS = ("uri", "shard", "size", "etag", "sha256", "data", "earlier", "status", "reason", "error")
    WRITES = (*_OUTPUT, "status", "reason", "error")
    DROPS = ("data", "earlier")

    @classmethod
    def build(cls, setup: Setup) -> Self:
        config = setup.config
        blobs, threads = setup.blobs if setup.containers else None, config.placement.write.threads
        return cls(setup.root, setup.output, setup.images, config.output.unchanged, threads, blobs)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "write")
        columns = {name: rows.nulls() for name in _OUTPUT}
        if self.blobs is not None:
            self._write_blob(self.blobs, rows, columns)
            return rows.table(self.DROPS, **columns)

        def work(index: int) -> None:
            with rows.attempt(index):
                row = rows.row(index)
                key = f"{self.images}/{row['uri']}"
                if row["status"] == Status.CLEANED:
                    written = self._write(key, batch.column("data")[index].as_py())
                elif row["status"] == Status.UNCHANGED and self.unchanged == "copy":
                    written = self._copy(key, rows, index)
                else:
                    return
                columns["output"][index] = key
                columns["output_size"][index], columns["output_sha256"][index] = written

        def delete_earlier(index: int) -> None:
            key = rows.row(index)["earlier"]
            if columns["output"][index] is not None or not key or not is_safe_key(key):
                return
            with rows.attempt(index):
                columns["output"][index] = key
                with_retries(lambda: store_of(self.output).delete(key), patience_s=PATIENCE_S)
                columns["output"][index] = None

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, range(len(batch))))
            list(pool.map(delete_earlier, range(len(batch))))
        return rows.table(self.DROPS, **columns)

    def _write_blob(self, folder: str, rows: Rows, columns: dict[str, list[object]]) -> None:
        """Write the cleaned images of a block, one behind the other."""
        column = rows.batch.column("data")
        images: dict[int, bytes] = {i: column[i].as_py() for i in range(len(column)) if column[i].is_valid}
        with rows.attempt(*images):
            if not images:
                return
            blob, start = b"".join(images.values()), 0
            name = hashlib.sha256(blob).hexdigest()[:32]
            key = f"{folder}/{shard_name(rows.row(0)['shard'])}/{name}{BLOB}"
            self._write(key, blob)
            for index, data in images.items():
                where = key, start, len(data), hashlib.sha256(data).hexdigest()
                for output, value in zip(_OUTPUT, where, strict=True):
                    columns[output][index] = value
                start += len(data)

    def _write(self, key: str, data: bytes) -> tuple[int, str]:
        with_retries(lambda: store_of(self.output).write(key, data), patience_s=PATIENCE_S)
        return len(data), hashlib.sha256(data).hexdigest()

    def _copy(self, key: str, rows: Rows, index: int) -> tuple[int, str]:
        """Size and sha256 of an image that is written as it was read."""
        source, output = store_of(self.root), store_of(self.output)
        row = rows.row(index)
        uri, size, etag, sha256 = row["uri"], row["size"], row["etag"], row["sha256"]
        if not etag or size is None or sha256 is None:
            return self._write(key, read_same_image(source, rows, index))
        try:
            with_retries(lambda: output.copy(source, uri, key, etag), patience_s=PATIENCE_S)
        except SourceChangedError:  # or only its tag has, and its bytes have not
            return self._write(key, read_same_image(source, rows, index))
        return size, sha256
