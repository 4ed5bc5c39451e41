"""sink: the image first, then its row; 1:1, on CPUs, bound by the network. Only thin rows leave it.

A row stands in the ledger only when its image is written, so a crash in between costs work and never an image.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from occpipe.done import index_rows
from occpipe.ledger import write_part
from occpipe.rows import Rows
from occpipe.schemas import PUBLISHED
from occpipe.stages.fetch import store_of
from occpipe.storage import is_safe_key, with_retries
from occpipe.types import Status


@dataclass(frozen=True)
class Sink:
    """Writes images below `images` and rows below `ledger/`; returns what the driver needs to know.

    Without `images` it ends a scan: what would be cleaned is scanned, and only rows are written.
    """

    output: str
    images: str | None
    run: int
    unchanged: str
    threads: int

    READS = ("data", *(name for name in PUBLISHED.names if not name.startswith("output")))
    WRITES = ("output", "output_size", "output_sha256", "status", "reason", "error")

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "sink")
        columns: dict[str, list[Any]] = {name: rows.nulls() for name in ("output", "output_size", "output_sha256")}
        store = store_of(self.output)
        if self.images is None:
            for index in rows.open():
                rows.finish(index, Status.SCANNED)
        written = {Status.CLEANED} if self.unchanged == "skip" else {Status.CLEANED, Status.UNCHANGED}

        def work(index: int) -> None:
            with rows.attempt(index):
                data = rows.value("data", index)
                key = f"{self.images}/{rows.value('uri', index)}"
                with_retries(lambda: store.write(key, data))
                columns["output"][index] = key
                columns["output_size"][index] = len(data)
                columns["output_sha256"][index] = hashlib.sha256(data).hexdigest()

        statuses = batch.column("status").to_pylist() if self.images else []
        to_write = [i for i, status in enumerate(statuses) if status in written]
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, to_write))
            if self.images and self.run > 1:  # what an earlier run wrote for an image that has none now is stale
                gone = [
                    uri
                    for uri, key in zip(rows.batch.column("uri").to_pylist(), columns["output"], strict=True)
                    if not key
                ]
                list(pool.map(lambda uri: store.delete(f"{self.images}/{uri}"), filter(is_safe_key, gone)))
        table = rows.table(**columns)
        made = table.select(PUBLISHED.names).cast(PUBLISHED)
        index = index_rows(made, write_part(store, self.run, made))
        for name in ("uri", "status", "reason", "error"):
            index = index.append_column(name, made.column(name))
        return index.append_column("copied", table.column("copied")) if "copied" in table.column_names else index
