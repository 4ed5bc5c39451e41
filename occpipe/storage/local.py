"""Local folders: writes go to a temporary name in the same folder and are renamed, so a reader sees whole files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from occpipe.errors import StorageError
from occpipe.storage.base import Entry, Store, TooLargeError

_TEMPORARY = ".occpipe-"


class LocalStore(Store):
    """A folder."""

    def __init__(self, path: str) -> None:
        super().__init__(str(Path(path).expanduser().resolve()))
        self.root = Path(self.uri)

    def read(self, key: str, limit: int | None = None) -> bytes:
        path = self.root / key
        with path.open("rb") as file:
            data = file.read() if limit is None else file.read(limit + 1)
        if limit is not None and len(data) > limit:
            raise TooLargeError(f"more than {limit} bytes")
        return data

    def open(self, key: str) -> BinaryIO:
        return (self.root / key).open("rb")

    def write(self, key: str, data: bytes) -> None:
        path = self.root / key
        with self._temporary(path, data) as temporary:
            temporary.replace(path)

    def create(self, key: str, data: bytes) -> bool:
        path = self.root / key
        with self._temporary(path, data) as temporary:
            try:
                os.link(temporary, path)  # a hard link fails where the name is taken, a rename would not
            except FileExistsError:
                return False
        return True

    def find(self, key: str) -> Entry | None:
        path = self.root / key
        return next(self._entry(path), None) if path.exists() else None

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        yield from self._walk(self.root / prefix if prefix else self.root)

    def check_readable(self) -> None:
        if not self.root.exists():
            raise StorageError(f"{self.uri}: no such file or folder")
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise StorageError(f"{self.uri}: no permission to read it")

    @contextlib.contextmanager
    def _temporary(self, path: Path, data: bytes) -> Iterator[Path]:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:  # with the permissions that the user's umask gives
                file.write(data)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        try:
            with os.scandir(folder) as listing:
                items = sorted(listing, key=lambda item: item.name)
        except FileNotFoundError:
            return
        except PermissionError as error:  # to pass over a folder would lose its images without a word
            raise StorageError(f"{folder}: no permission to list it") from error
        for item in items:
            if item.is_dir(follow_symlinks=False):  # a link to a folder may loop, so it is not followed
                yield from self._walk(Path(item.path))
            elif not item.name.startswith(_TEMPORARY):
                yield from self._entry(Path(item.path))

    def _entry(self, path: Path) -> Iterator[Entry]:
        key = path.relative_to(self.root).as_posix()
        try:
            stat = path.stat()
        except OSError:  # it vanished, or is a link to itself: reading it will say so in its row
            yield Entry(key, None, "")
            return
        if S_ISREG(stat.st_mode):
            yield Entry(key, stat.st_size, f"{stat.st_mtime_ns:x}-{stat.st_size:x}")


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait for other processes that fill a folder; where its file system knows no locks, the last one to rename wins."""
    held = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
