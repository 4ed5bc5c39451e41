"""The bytes of one image of a container.

Of a tar they are a range of bytes. Neighbours are read together, because the images of a block are: in chunks, of which a
process keeps some. Of a Parquet file they are in a row group, of which a process keeps the last one where it is small.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

import pyarrow.parquet as pq

from occpipe.io.containers.parquet import BrokenParquetError, reading, values
from occpipe.io.containers.place import Place, split_uri
from occpipe.io.images import ImageError, ImageReason
from occpipe.io.storage import Store, TooLargeError

T = TypeVar("T")

CHUNK = 4_000_000
"""Bytes of a tar that are read at once."""
KEPT_CHUNKS = 8
MAX_KEPT_GROUP = 128_000_000
"""Bytes of a row group whose images are kept, unpacked; of a larger one only those that are asked for are read."""


class _Kept(Generic[T]):
    """The last things that were read. Threads that want the same one wait for one read."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, Lock()
        self._things: OrderedDict[object, tuple[Lock, list[T]]] = OrderedDict()

    def get(self, key: object, read: Callable[[], T]) -> T:
        """The thing of a key."""
        with self._lock:
            lock, held = self._things.setdefault(key, (Lock(), []))
            self._things.move_to_end(key)
            while len(self._things) > self._most:
                self._things.popitem(last=False)
        with lock:
            if not held:
                held.append(read())
            return held[0]


_chunks = _Kept[bytes](KEPT_CHUNKS)
_footers = _Kept[pq.FileMetaData](KEPT_CHUNKS)
_groups = _Kept[dict[int, bytes | str | None]](1)


def read_member(store: Store, uri: str, size: int | None, place: Place, limit: int, *, ahead: bool = False) -> bytes:
    """The bytes of an image of a container.

    Args:
        store: Where the container lies.
        uri: The container and the image in it.
        size: Its bytes, where they are known: those of a tar are.
        place: Where it is.
        limit: How many bytes it may have.
        ahead: Whether its neighbours in a tar are wanted next.

    Raises:
        ImageError: It is a fault, or no value.
        TooLargeError, SourceChangedError, OSError: As a store does.
    """
    place.check()
    key, name = split_uri(uri)
    if place.kind == "tar":
        start = int(place.where)
        if size is None or size > limit:
            raise TooLargeError(f"{size} bytes, the limit is {limit}")
        if ahead:
            return _from_chunks(store, key, place.etag, start, start + size)
        data = store.read_range(key, place.etag, start, start + size) if size else b""
    else:
        value = _value(store, key, place, int(name))
        if value is None:
            raise ImageError(ImageReason.EMPTY_FILE, "the row has no image")
        if isinstance(value, str):
            raise ImageError(ImageReason.MISSING, f"the row has no bytes, only the path {value!r:.200}")
        data = value
    if len(data) > limit:
        raise TooLargeError(f"{len(data)} bytes, the limit is {limit}")
    return data


def _from_chunks(store: Store, key: str, etag: str, start: int, stop: int) -> bytes:
    parts = []
    for number in range(start // CHUNK, -(-stop // CHUNK)):
        begin = number * CHUNK

        def read(begin: int = begin) -> bytes:
            return store.read_range(key, etag, begin, begin + CHUNK)

        chunk = _chunks.get((store.uri, key, etag, number), read)
        parts.append(chunk[max(0, start - begin) : stop - begin])
    return b"".join(parts)


def _value(store: Store, key: str, place: Place, row: int) -> bytes | str | None:
    """The image of a row; ImageError where its row group cannot be read."""

    def opened(read: Callable[[pq.ParquetFile], T], footer: pq.FileMetaData | None = None) -> T:
        with store.open(key) as raw:
            store.check_tag(key, place.etag)
            with reading(raw, footer) as file:
                return read(file)

    try:
        known = (store.uri, key, place)
        footer = _footers.get(known, lambda: opened(lambda file: file.metadata))
        group, first = _group_of(footer, row)
        about = footer.row_group(group)
        if about.total_byte_size <= MAX_KEPT_GROUP:
            every = range(about.num_rows)
            images = _groups.get(
                (*known, group), lambda: opened(lambda file: dict(values(file, group, place.where, every)), footer)
            )
        else:
            images = opened(lambda file: dict(values(file, group, place.where, [row - first])), footer)
        return images[row - first]
    except KeyError:
        raise ImageError(ImageReason.BROKEN_CONTAINER, f"there is no row {row}") from None
    except BrokenParquetError as error:
        raise ImageError(ImageReason.BROKEN_CONTAINER, str(error)) from error


def _group_of(footer: pq.FileMetaData, row: int) -> tuple[int, int]:
    """The row group of a row, and the first row of that."""
    first = 0
    for group in range(footer.num_row_groups):
        count = footer.row_group(group).num_rows
        if row < first + count:
            return group, first
        first += count
    raise KeyError(row)
