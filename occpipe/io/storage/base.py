"""The interface of a store, and the rule for keys that may be written."""

from __future__ import annotations

import errno
import io
import logging
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
logger = logging.getLogger(__name__)

AWAY_PATIENCE_S = 180.0
"""How long calls are tried again if the store cannot be reached at all."""
MAX_PAUSE_S = 15.0
WALK_KEYS = 10_000
"""Keys that `walk` lists at once."""
CHUNK = 8_000_000
"""Bytes of a large object that are in memory at once while it is copied."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class Entry(NamedTuple):
    """An object below the root of a store: its key, size in bytes if known, and a tag that changes with its content."""

    key: str
    size: int | None
    etag: str


class Span(NamedTuple):
    """A range of a store's keys: below `folder` (no slash at its end, "" for the root), in the order of the store.

    It begins behind `after` ("": at the first key) and ends with `until` (None: no end). Only the store that made the span
    can interpret these bounds.
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
    """An object has changed since it was listed."""


class ArchivedError(PermissionError):
    """An object lies in a cold class of its store, such as Glacier, and must be restored before it can be read."""


class HungError(OSError):
    """A read gave neither bytes nor an error in time. It is not repeated, because each try may block a thread forever."""


class StoreAwayError(OSError):
    """No connection to the store; it may return within minutes."""


_FINAL = (
    *(FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError),
    *(TooLargeError, SourceChangedError, HungError),
)


class Store(ABC):
    """A root in a file system or bucket; keys are relative to it, with `/` between their parts.

    Methods raise FileNotFoundError, PermissionError, TooLargeError, or OSError for a failure that may pass.
    """

    def __init__(self, uri: str) -> None:
        self.access = access_of(uri)
        self.uri: str = Address(uri if uri.endswith("://") else uri.rstrip("/") or "/", self.access)

    def url(self, key: str) -> str:
        """The full address of a key, for messages and logs."""
        return f"{self.uri}{'' if self.uri.endswith('/') else '/'}{key}"

    @abstractmethod
    def read(self, key: str, limit: int | None = None) -> bytes:
        """The bytes of an object; TooLargeError if there are more than `limit`."""

    def open(self, key: str) -> BinaryIO:
        """An object as a file with `seek` and `read`; the caller closes it. By default it is read whole."""
        return io.BytesIO(self.read(key))

    def read_range(self, key: str, etag: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of an object; SourceChangedError if its tag is not `etag`."""
        with self.open(key) as file:
            file.seek(start)
            data = file.read(stop - start)
        self.check_tag(key, etag)  # after reading, so that a change in between is detected
        return data

    def check_tag(self, key: str, etag: str) -> None:
        """Raise SourceChangedError if an object has another tag; "" accepts any object."""
        entry = self.find(key) if etag else None
        if etag and (entry is None or entry.etag != etag):
            raise SourceChangedError(f"{self.url(key)}: its tag is {entry and entry.etag}, and was {etag}")

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write an object whole or not at all; it replaces an existing one."""

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
        """A writer of a large object, piece by piece. The object exists after the `with`, or not at all if that fails."""
        return self._spooled(key)

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; False if there is one."""

    @abstractmethod
    def find(self, key: str) -> Entry | None:
        """The entry of one object, or None."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; no error if there is none."""

    @abstractmethod
    def list_keys(self, span: Span, limit: int) -> tuple[list[Entry], list[Span]]:
        """The first objects of a range of keys, and the ranges that are left; a failed request is tried again.

        Args:
            span: The range; a folder that does not exist has no objects.
            limit: About how many objects to return.

        Returns:
            Objects in the order of their keys, and the ranges behind them in the same order, empty if all is listed.
            A link to a folder is not followed, and has a slash at the end of its key.

        Raises:
            StorageError, OSError: A folder cannot be listed; the message names it.
        """

    def divide(self, span: Span) -> list[Span]:
        """Spans that can be listed in parallel, in order; together they have the keys of this span."""
        return [span]

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """All objects below a prefix (a folder), in the order of their keys, streamed; none if it does not exist."""
        return walk_span(self, Span(prefix))

    def copy(self, source: Store, source_key: str, key: str, etag: str, size: int = 0) -> None:
        """Copy an object of another store to this one, without reading it in this process if the stores can do that.

        Args:
            source: The store of the object.
            source_key: Its key in that store.
            key: Its key in this store; an existing object is replaced.
            etag: The tag with which it was listed; "" copies any version.
            size: Its bytes, if it may be large: it is then never in memory as a whole.

        Raises:
            SourceChangedError: It has another tag now.
            OSError: As in `read` and `write`.
        """
        if size <= CHUNK:
            data = source.read(source_key)
            source.check_tag(source_key, etag)  # after reading, so that a change in between is detected
            self.write(key, data)
            return
        with source.open(source_key) as file, self.writer(key) as sink:
            while piece := file.read(CHUNK):
                sink.write(piece)
            source.check_tag(source_key, etag)

    @abstractmethod
    def check_readable(self) -> None:
        """Raise StorageError with one line if the root is missing or may not be read."""


def walk_span(store: Store, span: Span) -> Iterator[Entry]:
    """All objects of a range of a store's keys, in their order, streamed; links to folders are left out."""
    left = [span]
    while left:
        entries, rest = store.list_keys(left.pop(0), WALK_KEYS)
        yield from (entry for entry in entries if not entry.key.endswith("/"))
        left[:0] = rest


def with_retries(call: Callable[[], T], patience_s: float | None = None) -> T:
    """The result of `call`, tried again with growing pauses if storage fails in a way that may pass.

    A missing object, a missing permission, a limit and a full disk do not pass, and are raised at once.

    Args:
        call: Reads or writes; it may run several times.
        patience_s: Seconds for which it is tried again; None: three tries. A store that cannot be reached at all is tried
            for at least `AWAY_PATIENCE_S`.
    """
    start, paused, tries = time.monotonic(), 0.0, 0
    while True:
        try:
            return call()
        except _FINAL:
            raise
        except OSError as error:
            patience = max(patience_s or 0, AWAY_PATIENCE_S) if isinstance(error, StoreAwayError) else patience_s
            over = tries >= 2 if patience is None else max(paused, time.monotonic() - start) >= patience
            if over or error.errno in _FULL:
                raise
            jitter = random.uniform(0.5, 1.5)  # noqa: S311 - so that a thousand workers do not try at the same moment
            pause = min(MAX_PAUSE_S, 0.5 * 4**tries) * jitter
            logger.warning("storage failed (try %d), next try in %.1f s: %s", tries + 1, pause, error)
        time.sleep(pause)
        paused += pause
        tries += 1


def is_safe_key(key: str) -> bool:
    """Whether a key stays below the root to which it is joined, on every file system.

    Refused: absolute paths, empty, `.` and `..` parts, backslashes, drive letters, control characters, invalid UTF-8,
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
