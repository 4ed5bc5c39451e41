"""Every other file system that fsspec knows (gs://, az://, hdfs://, memory://, ...), by its installed driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import fsspec

from occpipe.errors import StorageError
from occpipe.storage.base import Entry, Store, TooLargeError


class FsspecStore(Store):
    """A folder in an fsspec file system."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        try:
            # A cached listing would hide the parts that workers have written since.
            self.fs, root = fsspec.url_to_fs(uri, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise StorageError(f"{uri}: {error}") from error
        self.root = root.rstrip("/")

    def read(self, key: str, limit: int | None = None) -> bytes:
        path = self._path(key)
        if limit is not None and (self.fs.size(path) or 0) > limit:
            raise TooLargeError(f"more than {limit} bytes")
        data: bytes = self.fs.cat_file(path)
        return data

    def open(self, key: str) -> BinaryIO:
        file: BinaryIO = self.fs.open(self._path(key), "rb")
        return file

    def write(self, key: str, data: bytes) -> None:
        self._make_parent(key)
        self.fs.pipe_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        self._make_parent(key)
        try:
            self.fs.pipe_file(self._path(key), data, mode="create")
        except FileExistsError:
            return False
        return True

    def delete(self, key: str) -> None:
        if self.fs.exists(self._path(key)):
            self.fs.rm_file(self._path(key))

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        start = self._path(prefix) if prefix else self.root
        if not self.fs.exists(start):
            return
        for folder, _, files in self.fs.walk(start, detail=True, on_error="raise"):
            for name, info in sorted(files.items()):
                yield _entry(f"{folder}/{name}"[len(self.root) :].lstrip("/"), info)

    def find(self, key: str) -> Entry | None:
        try:
            return _entry(key, self.fs.info(self._path(key)))
        except FileNotFoundError:
            return None

    def check_readable(self) -> None:
        try:
            found = self.fs.exists(self.root or "/")
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.uri}: {error}") from error
        if not found:
            raise StorageError(f"{self.uri}: no such file or folder")

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def _make_parent(self, key: str) -> None:
        self.fs.makedirs(self._path(key).rsplit("/", 1)[0], exist_ok=True)


def _entry(key: str, info: dict[str, Any]) -> Entry:
    tag = info.get("etag") or info.get("md5Hash") or info.get("mtime") or info.get("created") or ""
    return Entry(key, info.get("size"), str(tag))
