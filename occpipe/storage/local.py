"""Local folders: writes go to a temporary name in the same folder and are renamed, so a reader sees whole files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from occpipe.errors import StorageError
from occpipe.storage.base import Entry, Store, TooLargeError

_TEMPORARY = ".occpipe-"


class LocalStore(Store):
    """A folder."""

    def __init__(self, path: str) -> None:
        super().__init__(str(Path(path).expanduser().absolute()))
        self.root = Path(self.uri)

    def read(self, key: str, limit: int | None = None) -> bytes:
        path = self.root / key
        with path.open("rb") as file:
            data = file.read() if limit is None else file.read(limit + 1)
        if limit is not None and len(data) > limit:
            raise TooLargeError(f"more than {limit} bytes")
        return data

    def write(self, key: str, data: bytes) -> None:
        path = self.root / key
        with self._temporary(path, data) as temporary:
            os.replace(temporary, path)  # noqa: PTH105 - Path.replace is the same call with one more object

    def create(self, key: str, data: bytes) -> bool:
        path = self.root / key
        with self._temporary(path, data) as temporary:
            try:
                os.link(temporary, path)  # a hard link fails where the name is taken, a rename would not
            except FileExistsError:
                return False
        return True

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
    def _temporary(self, path: Path, data: bytes) -> Iterator[str]:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), 0o644)
            yield temporary
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        try:
            with os.scandir(folder) as listing:
                items = sorted(listing, key=lambda item: item.name)
        except FileNotFoundError:
            return
        for item in items:
            if item.is_dir(follow_symlinks=False):  # a link to a folder may loop, so it is not followed
                yield from self._walk(Path(item.path))
            elif not item.name.startswith(_TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    if item.is_file():
                        stat = item.stat()
                        key = Path(item.path).relative_to(self.root).as_posix()
                        yield Entry(key, stat.st_size, f"{stat.st_mtime_ns:x}-{stat.st_size:x}")
