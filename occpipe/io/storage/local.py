"""Local folders: a file is written under a temporary name in its folder and renamed, so a reader sees whole files only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO

from occpipe.core.access import Address, access_of
from occpipe.core.errors import StorageError
from occpipe.io.storage.base import Entry, SourceChangedError, Store, TooLargeError, Writer
from occpipe.io.storage.tree import Item, TreeStore

_TEMPORARY = ".occpipe-"
_BOTH = "a bucket can have an object and others below its name; a disk cannot have a file and a folder of one name"
_FICLONE = 0x40049409
_MAX_COPY_BYTES = 1 << 30


class LocalStore(TreeStore):
    """A folder."""

    def __init__(self, path: str) -> None:
        super().__init__(Address(str(Path(path).resolve()), access_of(path)))
        self.root = Path(self.uri)

    def read(self, key: str, limit: int | None = None) -> bytes:
        path = self.root / key
        # Without O_NONBLOCK, opening a pipe would block forever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            stat = os.fstat(file.fileno())
            if not S_ISREG(stat.st_mode):
                raise FileNotFoundError(f"{path} is not a file, but a pipe, a socket or a device")
            # Python allocates all that is asked for, so a large limit must not be.
            data = file.read() if limit is None else file.read(min(limit, stat.st_size) + 1)
        if limit is not None and len(data) > limit:
            raise TooLargeError(f"more than {limit} bytes")
        return data

    def open(self, key: str) -> BinaryIO:
        return (self.root / key).open("rb")

    def write(self, key: str, data: bytes) -> None:
        path = self.root / key
        with self._temporary(path) as temporary:
            _fill(temporary, data)
            _put(temporary, path)

    @contextlib.contextmanager
    def writer(self, key: str) -> Iterator[Writer]:
        path = self.root / key
        with self._temporary(path) as temporary:
            with temporary.open("xb") as file:
                yield file
            _put(temporary, path)

    def copy(self, source: Store, source_key: str, key: str, etag: str, size: int = 0) -> None:
        if not isinstance(source, LocalStore):
            super().copy(source, source_key, key, etag, size)
            return
        path, origin = self.root / key, source.root / source_key
        with origin.open("rb") as reader, self._temporary(path) as temporary:
            _check(reader, origin, etag)
            with temporary.open("xb") as writer:
                _copy(reader, writer)
            _check(reader, origin, etag)
            _put(temporary, path)

    def create(self, key: str, data: bytes) -> bool:
        path = self.root / key
        with self._temporary(path) as temporary:
            _fill(temporary, data)
            try:
                os.link(temporary, path)  # a hard link fails if the name exists; a rename would replace it
            except FileExistsError:
                return False
        return True

    def find(self, key: str) -> Entry | None:
        path = self.root / key
        return self._look(key) if path.exists() and not path.is_dir() else None

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def check_readable(self) -> None:
        if not self.root.exists():
            raise StorageError(f"{self.uri}: no such file or folder")
        if not self.root.is_dir():
            raise StorageError(f"{self.uri}: not a folder")
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise StorageError(f"{self.uri}: no permission to read it")

    @contextlib.contextmanager
    def _temporary(self, path: Path) -> Iterator[Path]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotADirectoryError(f"{path}: {_BOTH}") from error
        temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _items(self, folder: str) -> list[Item]:
        path = self.root / folder
        try:
            with os.scandir(path) as listing:
                return [item for entry in listing if (item := _item(entry)) is not None]
        except (FileNotFoundError, NotADirectoryError):  # it vanished
            return []
        except PermissionError as error:  # skipping a folder would silently lose its images
            raise StorageError(f"{path}: no permission to list it") from error
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} while it was listed", str(path)) from error

    def _look(self, key: str) -> Entry | None:
        """The entry of a file, without a size for a pipe or a device; None if it vanished."""
        path = os.path.join(self.uri, key)  # noqa: PTH118 - a Path for each of many files costs more than the call
        try:
            stat = os.stat(path)  # noqa: PTH116
        except OSError as error:  # a link to itself or to nothing: reading it fails with an error row
            vanished = isinstance(error, FileNotFoundError) and not os.path.lexists(path)
            return None if vanished else Entry(key, None, "")
        if S_ISDIR(stat.st_mode):  # a link to a folder
            return Entry(f"{key}/", None, "")
        if not S_ISREG(stat.st_mode):  # a pipe or a device: reading it fails with an error row
            return Entry(key, None, "")
        return Entry(key, stat.st_size, _tag(stat))


def _item(entry: os.DirEntry[str]) -> Item | None:
    if entry.is_dir(follow_symlinks=False):  # a link to a folder may loop, so it is not followed
        return Item(f"{entry.name}/", None)
    return None if entry.name.startswith(_TEMPORARY) else Item(entry.name, None)


def _tag(stat: os.stat_result) -> str:
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}"


def _put(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except IsADirectoryError as error:
        raise IsADirectoryError(f"{path}: {_BOTH}") from error


def _check(file: BinaryIO, path: Path, etag: str) -> None:
    now = _tag(os.fstat(file.fileno()))
    if etag and now != etag:
        raise SourceChangedError(f"{path}: its tag is {now}, and was {etag}")


def _fill(path: Path, data: bytes) -> None:
    with path.open("xb") as file:  # with the permissions of the user's umask
        file.write(data)


def _copy(reader: BinaryIO, writer: BinaryIO) -> None:
    """Copy a file by sharing its blocks, or within the kernel, or through memory."""
    with contextlib.suppress(OSError):  # the file system cannot share blocks
        fcntl.ioctl(writer, _FICLONE, reader.fileno())
        return
    with contextlib.suppress(OSError):  # two file systems; a full disk fails again below
        while os.copy_file_range(reader.fileno(), writer.fileno(), _MAX_COPY_BYTES):
            pass
    shutil.copyfileobj(reader, writer)  # the rest


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes that fill it; without locks in its file system, the last rename wins."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
