"""fetch: bytes from storage, 1:1, on CPUs, bound by the network: so many reads at once, no pixel touched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import pyarrow as pa

from occpipe.config import Corpus
from occpipe.images import ImageError, ImageReason
from occpipe.rows import Rows
from occpipe.storage import Store, TooLargeError, is_safe_key, open_store, with_retries

store_of = cache(open_store)
"""One store, and so one connection pool, for each URI and worker process."""


def fetch_one(store: Store, uri: str, size: int | None, max_bytes: int) -> bytes:
    """The bytes of one image.

    Raises ImageError for a key that could leave the root or a file over `max_bytes`; FileNotFoundError,
    PermissionError or OSError as the store does.
    """
    if not is_safe_key(uri):
        raise ImageError(ImageReason.UNSAFE_PATH, f"this name could leave the output folder: {uri!r}")
    if size is not None and size > max_bytes:
        raise ImageError(ImageReason.TOO_MANY_BYTES, f"{size} bytes, the limit is {max_bytes}")
    try:
        return with_retries(lambda: store.read(uri, max_bytes))
    except TooLargeError as error:
        raise ImageError(ImageReason.TOO_MANY_BYTES, str(error)) from error


@dataclass(frozen=True)
class Fetch:
    """Adds `data`, the encoded bytes, and their number where the listing did not know it."""

    root: str
    corpus: Corpus
    threads: int

    READS = ("uri", "size")
    WRITES = ("data", "size", "status", "reason", "error")

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "fetch")
        data = rows.nulls()
        sizes = batch.column("size").to_pylist()
        store = store_of(self.root)

        def work(index: int) -> None:
            with rows.attempt(index):
                data[index] = fetch_one(store, rows.value("uri", index), sizes[index], self.corpus.max_bytes)
                sizes[index] = len(data[index])

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, rows.open()))
        return rows.table(data=data, size=sizes)
