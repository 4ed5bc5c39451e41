"""The interface of a store, and the rule for keys that may be written."""

from __future__ import annotations

import io
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeVar

T = TypeVar("T")


class Entry(NamedTuple):
    """One object under a store's root: its key, size in bytes if known, and a tag that changes with its content."""

    key: str
    size: int | None
    etag: str


class TooLargeError(OSError):
    """An object has more bytes than the caller accepts."""


class Store(ABC):
    """A root in a file system or bucket; keys are relative to it, with `/` between their parts.

    Reading raises FileNotFoundError, PermissionError, TooLargeError, or OSError for what may pass.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") or "/"

    def url(self, key: str) -> str:
        """The full address of a key, for people and logs."""
        return f"{self.uri.rstrip('/')}/{key}"

    @abstractmethod
    def read(self, key: str, limit: int | None = None) -> bytes:
        """The bytes of an object, at most `limit`."""

    def open(self, key: str) -> BinaryIO:
        """An object of which parts are read, by `seek` and `read`; to be closed. As a whole, where a store has no parts."""
        return io.BytesIO(self.read(key))

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write an object whole or not at all, over what is there."""

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
    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """All objects below a prefix (a folder), streamed; nothing where the prefix is not there."""

    @abstractmethod
    def check_readable(self) -> None:
        """Raise StorageError in one line where the root is missing or closed to us."""


def with_retries(call: Callable[[], T]) -> T:
    """What `call` returns, tried three times with growing pauses where storage fails in a way that may pass.

    A missing object, a closed door and a limit do not pass, and are raised at once.
    """
    for pause in (0.5, 2.0):
        try:
            return call()
        except (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, TooLargeError):
            raise
        except OSError:
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, so that a thousand workers spread out
    return call()


def is_safe_key(key: str) -> bool:
    """Whether a key stays below the root it is joined to, on every file system.

    Refused: absolute paths, empty, `.` and `..` parts, backslashes, drive letters, NUL and other control characters,
    parts over 255 bytes (the limit of common file systems), more than 1,024 bytes in all (the limit of S3).
    """
    if not key or "\\" in key or any(ord(c) < 32 or ord(c) == 127 for c in key) or len(key.encode()) > 1024:
        return False
    parts = key.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
        return False
    return not (len(parts[0]) == 2 and parts[0][1] == ":")
