"""load: bytes from storage to pixels at the model's size; 1:1, on CPUs, bound by reading and by decoding.

Only the pixels go on, at most `side` on their long side: 0.5 to 3 MB for a photo of any size. A later stage that needs
the bytes reads them again, and compares their sha256 with that of the row.
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Self

import pyarrow as pa

from occpipe.core.config import Corpus
from occpipe.io.containers import place_of, read_member, split_uri
from occpipe.io.images import ImageError, ImageReason, Limits, decode_with_header
from occpipe.io.storage import Store, TooLargeError, is_safe_key, store_of, with_retries, within
from occpipe.stages.rows import Rows
from occpipe.stages.stage import Setup, Stage

_MAX_BYTES = sys.maxsize
_decoding = BoundedSemaphore(4)
"""Pictures that a process decodes at once: a photo of 25 MP takes 75 MB while it is decoded."""


def read_image(
    store: Store, uri: str, size: int | None, max_bytes: int, etag: str | None = None, *, ahead: bool = False
) -> bytes:
    """The bytes of one image of a known or unknown size; `etag` says where it is in a container.

    `ahead`: its neighbours in the container are wanted next. Raises ImageError for a key that could leave the root, a file
    over `max_bytes` and a fault of a container; FileNotFoundError, PermissionError or OSError as the store does.
    """
    place = place_of(etag)
    if not is_safe_key(split_uri(uri)[0] if place else uri):  # what is in a container stays there, whatever its name
        raise ImageError(ImageReason.UNSAFE_PATH, f"this name could leave the output folder: {uri!r}")
    if size is not None and size > max_bytes:
        raise ImageError(ImageReason.TOO_MANY_BYTES, f"{size} bytes, the limit is {max_bytes}")
    limit_s = store.access.read_timeout_s

    def read() -> bytes:
        return (
            store.read(uri, max_bytes)
            if place is None
            else read_member(store, uri, size, place, max_bytes, ahead=ahead)
        )

    return with_retries(lambda: within(limit_s, read))


def read_same_image(store: Store, rows: Rows, index: int, max_bytes: int = _MAX_BYTES) -> bytes:
    """The bytes of an image that was read before, compared by sha256 where the row has one, and else by etag.

    Raises ImageError (source_changed) where they differ from those of the row, and as `read_image` does.
    """
    row = rows.row(index)
    uri, size, etag, sha256 = row["uri"], row["size"], row["etag"], row["sha256"]
    if size is None:
        raise ValueError("a row of an image that was seen, without its size in bytes")
    try:
        data = read_image(store, uri, size, min(size, max_bytes), etag)
    except TooLargeError as error:
        raise ImageError(ImageReason.SOURCE_CHANGED, f"it had {size} bytes when it was seen, and has more") from error
    if sha256 is not None:
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ImageError(ImageReason.SOURCE_CHANGED, "its bytes are not those that were seen")
    elif len(data) != size:
        raise ImageError(ImageReason.SOURCE_CHANGED, f"it had {size} bytes when it was seen, and has {len(data)}")
    elif etag and place_of(etag) is None:
        entry = with_retries(lambda: store.find(uri))  # after reading, so that a change in between is noticed
        if entry is None or entry.etag != etag:
            raise ImageError(ImageReason.SOURCE_CHANGED, f"its tag is {entry and entry.etag}, and was {etag}")
    return data


@dataclass(frozen=True)
class Load(Stage):
    """Adds facts of the bytes and the header, and the upright pixels."""

    root: str
    corpus: Corpus
    side: int
    threads: int

    READS = ("uri", "size", "etag")
    WRITES = (
        *("sha256", "size", "format", "width", "height", "pixels", "mask_width", "mask_height"),
        *("status", "reason", "error"),
    )

    @classmethod
    def build(cls, setup: Setup) -> Self:
        config = setup.config
        return cls(setup.root, config.corpus, config.segmenter.decode_side, config.placement.load.threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "load")
        columns = {name: rows.nulls() for name in self.WRITES if name not in rows.STATE}
        columns["size"] = rows.column("size")
        store, limits = store_of(self.root), Limits(self.corpus.max_pixels, self.corpus.min_side)

        def work(index: int) -> None:
            with rows.attempt(index):
                row = rows.row(index)
                data = read_image(store, row["uri"], row["size"], self.corpus.max_bytes, row["etag"], ahead=True)
                columns["size"][index], columns["sha256"][index] = len(data), hashlib.sha256(data).hexdigest()
                with _decoding:
                    header, picture = decode_with_header(data, limits, self.side)
                columns["format"][index] = header.format
                columns["width"][index], columns["height"][index] = header.width, header.height
                columns["mask_height"][index], columns["mask_width"][index] = picture.shape[:2]
                columns["pixels"][index] = picture.tobytes()

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, rows.open()))
        return rows.table(**columns)
