"""refetch: the photos that an earlier run has seen, and no others; 1:1, on CPUs, bound by the network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from occpipe.config import Corpus
from occpipe.images import ImageError, ImageReason
from occpipe.rows import Rows
from occpipe.stages.fetch import fetch_one, store_of
from occpipe.storage import Store, with_retries
from occpipe.types import Status


def fetch_same(store: Store, uri: str, size: int | None, etag: str | None, max_bytes: int) -> bytes:
    """The bytes of an image as it was listed with a size and a tag; a list of URIs knows no tags.

    Raises ImageError where it is another one now, and as `fetch_one` does.
    """
    data = fetch_one(store, uri, None, max_bytes)
    if size is not None and len(data) != size:
        raise ImageError(ImageReason.SOURCE_CHANGED, f"it has {len(data)} bytes, and had {size} when it was scanned")
    now = with_retries(lambda: store.find(uri)) if etag else None  # after reading: what changes in between is seen
    if etag and (now is None or now.etag != etag):
        raise ImageError(
            ImageReason.SOURCE_CHANGED, f"its tag is {now and now.etag}, and was {etag} when it was scanned"
        )
    return data


@dataclass(frozen=True)
class Refetch:
    """Adds `data` where it is missing: for what is to be filled, and for what is written `unchanged`."""

    root: str
    corpus: Corpus
    unchanged: str
    threads: int

    READS = ("uri", "size", "etag", "data", "status", "reason", "error")
    WRITES = ("data", "status", "reason", "error")

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "fetch")
        data = batch.column("data").to_pylist()
        written = {None, Status.UNCHANGED} if self.unchanged == "copy" else {None}
        statuses = batch.column("status").to_pylist()
        store = store_of(self.root)

        def work(index: int) -> None:
            with rows.attempt(index):
                uri, size, etag = (rows.value(name, index) for name in ("uri", "size", "etag"))
                data[index] = fetch_same(store, uri, size, etag, self.corpus.max_bytes)

        wanted = [i for i, status in enumerate(statuses) if status in written and data[i] is None]
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, wanted))
        return rows.table(data=data)
