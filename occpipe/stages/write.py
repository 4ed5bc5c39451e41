"""write: the image below OUTPUT; 1:1, on CPUs, bound by the network. Its row is written after it, in a part.

An unchanged image is copied by the store where that can be done, and does not pass through this process.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from occpipe.core.types import Status
from occpipe.io.storage import SourceChangedError, is_safe_key, store_of, with_retries
from occpipe.stages.load import read_same_image
from occpipe.stages.rows import Rows

PATIENCE_S = 300.0
"""How long the output is tried: a storage that is away for minutes must not become error rows."""


@dataclass(frozen=True)
class Write:
    """Writes images below the folder `images` of OUTPUT; without one it ends a scan: what has a mask is scanned.

    An image that an earlier run wrote (`earlier`) is deleted where the row has none now. Where that fails, the row keeps
    its key, so that a later run deletes it.
    """

    root: str
    output: str
    images: str | None
    unchanged: str
    threads: int

    READS = ("uri", "size", "etag", "sha256", "earlier", "status", "reason", "error")
    WRITES = ("lost", "output", "output_size", "output_sha256", "status", "reason", "error")
    DROPS = ("data", "earlier")  # there is no `data` in a scan

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "write")
        columns: dict[str, list[Any]] = {name: rows.nulls() for name in ("output", "output_size", "output_sha256")}
        columns["lost"] = rows.column("lost")  # there is none in a scan
        if self.images is None:
            for index in rows.open():
                rows.finish(index, Status.SCANNED)
            return rows.table(self.DROPS, **columns)
        data, statuses, earlier = (rows.column(name) for name in ("data", "status", "earlier"))

        def work(index: int) -> None:
            with rows.attempt(index):
                key = f"{self.images}/{rows.value('uri', index)}"
                if statuses[index] == Status.CLEANED:
                    written = self._write(key, data[index])
                elif statuses[index] == Status.UNCHANGED and self.unchanged == "copy":
                    written = self._copy(key, rows, index)
                else:
                    return
                columns["output"][index] = key
                columns["output_size"][index], columns["output_sha256"][index] = written

        def delete(index: int) -> None:
            with rows.attempt(index):
                columns["output"][index] = key = earlier[index]
                with_retries(lambda: store_of(self.output).delete(key), patience_s=PATIENCE_S)
                columns["output"][index] = None

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, range(len(batch))))
            stale = [i for i, key in enumerate(earlier) if key and is_safe_key(key) and columns["output"][i] is None]
            list(pool.map(delete, stale))
        return rows.table(self.DROPS, **columns)

    def _write(self, key: str, data: bytes) -> tuple[int, str]:
        with_retries(lambda: store_of(self.output).write(key, data), patience_s=PATIENCE_S)
        return len(data), hashlib.sha256(data).hexdigest()

    def _copy(self, key: str, rows: Rows, index: int) -> tuple[int, str]:
        """Size and sha256 of an image that is written as it was read."""
        source, output = store_of(self.root), store_of(self.output)
        uri, size, etag, sha256 = (rows.value(name, index) for name in ("uri", "size", "etag", "sha256"))
        if not etag or sha256 is None:
            return self._write(key, read_same_image(source, rows, index))
        try:
            with_retries(lambda: output.copy(source, uri, key, etag), patience_s=PATIENCE_S)
        except SourceChangedError:  # or only its tag has, and its bytes have not
            return self._write(key, read_same_image(source, rows, index))
        return size, sha256
