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
from occpipe.dataset.parquet import PATIENCE_S
from occpipe.io.storage import SourceChangedError, is_safe_key, store_of, with_retries
from occpipe.stages.load import read_same_image
from occpipe.stages.rows import Rows
from occpipe.stages.stage import Setup, Stage


@dataclass(frozen=True)
class Write(Stage):
    """Writes images below the folder `images` of OUTPUT.

    An image that an earlier run wrote (`earlier`) is deleted where the row has none now. Where that fails, the row keeps
    its key, so that a later run deletes it.
    """

    root: str
    output: str
    images: str
    unchanged: str
    threads: int

    READS = ("uri", "size", "etag", "sha256", "data", "earlier", "status", "reason", "error")
    WRITES = ("output", "output_size", "output_sha256", "status", "reason", "error")
    DROPS = ("data", "earlier")

    @classmethod
    def build(cls, setup: Setup) -> Self:
        config = setup.config
        return cls(setup.root, setup.output, setup.images, config.output.unchanged, config.placement.write.threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "write")
        columns = {name: rows.nulls() for name in ("output", "output_size", "output_sha256")}

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
