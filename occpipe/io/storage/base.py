"""The interface of a store, and the rule for keys that may be written."""

from __future__ import annotations

import errno
import io
import random
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

from occpipe.core.access import Address, access_of

T = TypeVar("T")

AWAY_PATIENCE_S = 180.0
"""How long a store that cannot be reached at all is waited for."""
MAX_PAUSE_S = 15.0
WALK_KEYS = 10_000
"""Keys that `walk` asks for at once."""
CHUNK = 8_000_000
"""Bytes of a large object that are in memory at once while it is copied."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class Entry(NamedTuple):
    """One object under a store's root: its key, size in bytes if known, and a tag that changes with its content."""

    key: str
    size: int | None
    etag: str


class Span(NamedTuple):
    """A part of a store's keys: below `folder` (no slash at its end, "" for the root), in the order of the store.

    It begins behind `after` ("": at the first key) and ends with `until` (None: no end). These bounds belong to the store
    that made the span: no one else reads them.
    """

    folder: str = ""
    after: str = ""
    until: str | None = None


class Writer(Protocol):
    """Takes the bytes of one object, piece by piece."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Take some bytes."""
        ...


class TooLargeError(OSError):
    """An object has more bytes than the caller accepts."""


class SourceChangedError(OSError):
    """An object is not the one that was listed."""


class ArchivedError(PermissionError):
    """An object lies in a cold class of its store, such as Glacier, and must be restored before it can be read."""


class HungError(OSError):
    """A read gave neither bytes nor an error in time. It is not tried again: each try may hold a thread for good."""


class StoreAwayError(OSError):
    """No connection to the store: it may be back in minutes."""


_FINAL = (
    *(FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError),
    *(TooLargeError, SourceChangedError, HungError),
)


class Store(ABC):
    """A root in a file system or bucket; keys are relative to it, with `/` between their parts.

    Reading raises FileNotFoundError, PermissionError, TooLargeError, or OSError for what may pass.
    """

    def __init__(self, uri: str) -> None:
        self.access = access_of(uri)
        self.uri: str = Address(uri if uri.endswith("://") else uri.rstrip("/") or "/", self.access)

    def url(self, key: str) -> str:
        """The full address of a key, for people and logs."""
        return f"{self.uri}{'' if self.uri.endswith('/') else '/'}{key}"

    @abstractmethod
    def read(self, key: str, limit: int | None = None) -> bytes:
        """The bytes of an object, at most `limit`."""

    def open(self, key: str) -> BinaryIO:
        """An object of which parts are read, by `seek` and `read`; to be closed. As a whole, where a store has no parts."""
        return io.BytesIO(self.read(key))

    def read_range(self, key: str, etag: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop` of an object; SourceChangedError where it has another tag than `etag`."""
        with self.open(key) as file:
            file.seek(start)
            data = file.read(stop - start)
        self.check_tag(key, etag)  # after reading: what changes in between is seen
        return data

    def check_tag(self, key: str, etag: str) -> None:
        """Raise SourceChangedError where an object has another tag; "" is that of any object."""
        entry = self.find(key) if etag else None
        if etag and (entry is None or entry.etag != etag):
            raise SourceChangedError(f"{self.url(key)}: its tag is {entry and entry.etag}, and was {etag}")

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write an object whole or not at all, over what is there."""

    @contextmanager
    def _spooled(self, key: str) -> Iterator[Writer]:
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            self._put(key, file.name)

    def _put(self, key: str, path: str) -> None:
        """Write an object from a local file."""
        self.write(key, Path(path).read_bytes())

    def writer(self, key: str) -> AbstractContextManager[Writer]:
        """Writes a large object piece by piece, as a whole at the end of the `with`; not at all where that fails."""
        return self._spooled(key)

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; False where there is one."""

    @abstractmethod
    def find(self, key: str) -> Entry | None:
        """The entry of one object, None where there is none."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""

    @abstractmethod
    def list_keys(self, span: Span, limit: int) -> tuple[list[Entry], list[Span]]:
        """The first objects of a part of the keys, and the parts that are left; a failed request is tried again.

        Args:
            span: Where to look; a folder that is not there has no objects.
            limit: About how many objects to return.

        Returns:
            Objects in the order of their keys, and what is left behind them, in the same order; none where all was listed.
            A link to a folder, which is not followed, has a slash at the end of its key.

        Raises:
            StorageError, OSError: A folder cannot be listed; the message names it.
        """

    def divide(self, span: Span) -> list[Span]:
        """Parts of a span that can be listed side by side, in order: together they hold the same keys."""
        return [span]

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """All objects below a prefix (a folder), in the order of their keys, streamed; none where it is not there."""
        return walk_span(self, Span(prefix))

    def copy(self, source: Store, source_key: str, key: str, etag: str) -> None:
        """Write an object of another store into this one, where that can be done without reading it here.

        Args:
            source: The store that holds it.
            source_key: Its key there.
            key: Its key here; what is there is replaced.
            etag: The tag with which it was listed; "" copies whatever is there.

        Raises:
            SourceChangedError: It has another tag now.
            OSError: As `read` and `write` do.
        """
        data = source.read(source_key)
        source.check_tag(source_key, etag)  # after reading: what changes in between is seen
        self.write(key, data)

    @abstractmethod
    def check_readable(self) -> None:
        """Raise StorageError in one line where the root is missing or closed to us."""


def walk_span(store: Store, span: Span) -> Iterator[Entry]:
    """All objects of a part of a store's keys, in their order, streamed; links to folders are left out."""
    left = [span]
    while left:
        entries, rest = store.list_keys(left.pop(0), WALK_KEYS)
        yield from (entry for entry in entries if not entry.key.endswith("/"))
        left[:0] = rest


def with_retries(call: Callable[[], T], patience_s: float | None = None) -> T:
    """What `call` returns, tried again with growing pauses where storage fails in a way that may pass.

    A missing object, a closed door, a limit and a full disk do not pass, and are raised at once.

    Args:
        call: Reads or writes; it may run several times.
        patience_s: Seconds for which it is tried again; None: three tries. A store that cannot be reached at all is tried
            for at least `AWAY_PATIENCE_S`.
    """
    start, waited, tries = time.monotonic(), 0.0, 0
    while True:
        try:
            return call()
        except _FINAL:
            raise
        except OSError as error:
            patience = max(patience_s or 0, AWAY_PATIENCE_S) if isinstance(error, StoreAwayError) else patience_s
            over = tries >= 2 if patience is None else max(waited, time.monotonic() - start) >= patience
            if over or error.errno in _FULL:
                raise
        jitter = random.uniform(0.5, 1.5)  # noqa: S311 - so that a thousand workers spread out
        pause = min(MAX_PAUSE_S, 0.5 * 4**tries) * jitter
        time.sleep(pause)
        waited += pause
        tries += 1


def is_safe_key(key: str) -> bool:
    """Whether a key stays below the root it is joined to, on every file system.

    Refused: absolute paths, empty, `.` and `..` parts, backslashes, drive letters, control characters, what is no UTF-8,
    parts over 255 bytes (the limit of common file systems), more than 1,024 bytes in all (the limit of S3).
    """
    if not key or "\\" in key or any(ord(c) < 32 or ord(c) == 127 or "\ud800" <= c <= "\udfff" for c in key):
        return False
    if len(key.encode()) > 1024:
        return False
    parts = key.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
        return False
    return not (len(parts[0]) == 2 and parts[0][1] == ":")
