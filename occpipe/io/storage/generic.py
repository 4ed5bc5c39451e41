"""Every other file system of fsspec (gs://, az://, hdfs://, memory://, ...), with its installed driver."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, BinaryIO

import fsspec

from occpipe.core.access import Access
from occpipe.core.errors import ConfigError, StorageError, first_line
from occpipe.io.storage.base import Entry, TooLargeError
from occpipe.io.storage.location import scheme_of
from occpipe.io.storage.tree import Item, TreeStore

logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs a traceback of every error that it raises
_OPTIONS: dict[str, dict[str, tuple[str, str | None]]] = {
    "gs": {
        "anonymous": ("token", "anon"),
        "requester_pays": ("requester_pays", None),
        "endpoint": ("endpoint_url", None),
    },
    **{scheme: {"anonymous": ("anon", None)} for scheme in ("az", "abfs", "abfss")},
}
"""By scheme and field of the access: the option of the driver, and its value if it differs from the field's."""
_EXTRAS = {"gs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}


class FsspecStore(TreeStore):
    """A folder in an fsspec file system."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        try:
            # A cached listing would hide parts that workers wrote later.
            self.fs, root = fsspec.url_to_fs(str(uri), use_listings_cache=False, **_options(self.uri, self.access))
        except ImportError as error:
            extra = _EXTRAS.get(scheme_of(uri) or "")
            hint = f"; pip install 'occpipe[{extra}]'" if extra else ""
            raise StorageError(f"{uri}: {first_line(error)}{hint}") from error
        except (OSError, ValueError) as error:  # some drivers connect here
            raise StorageError(f"{uri}: {first_line(error)}") from error
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

    def _put(self, key: str, path: str) -> None:
        self._make_parent(key)
        self.fs.put_file(path, self._path(key))

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

    def find(self, key: str) -> Entry | None:
        try:
            info = self.fs.info(self._path(key))
        except FileNotFoundError:
            return None
        return None if info.get("type") == "directory" else _entry(key, info)

    def check_readable(self) -> None:
        try:
            exists = self.fs.exists(self.root or "/")
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.uri}: {first_line(error)}") from error
        if not exists:
            raise StorageError(f"{self.uri}: no such file or folder")

    def _items(self, folder: str) -> list[Item]:
        # Not with fsspec's `walk`, which silently skips sub-folders that cannot be listed.
        path = self._path(folder) if folder else self.root
        try:
            listing = self.fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):  # it vanished
            return []
        except OSError as error:
            raise StorageError(f"{self.url(folder)}: cannot be listed: {error}") from error
        items = []
        for info in listing:
            inner = info["name"].rstrip("/")
            name = inner.rpartition("/")[2]
            if inner.strip("/") == path.strip("/"):  # object stores list the marker of an empty folder in that folder
                continue
            if info.get("type") != "directory":
                items.append(Item(name, _entry(f"{folder}/{name}" if folder else name, info)))
            elif info.get("islink"):  # a link to a folder may loop, so it is not followed
                items.append(Item(name, Entry(f"{folder}/{name}/" if folder else f"{name}/", None, "")))
            else:
                items.append(Item(f"{name}/", None))
        return items

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def _make_parent(self, key: str) -> None:
        self.fs.makedirs(self._path(key).rsplit("/", 1)[0], exist_ok=True)


def _options(uri: str, access: Access) -> dict[str, Any]:
    """The options of a driver for an access; ConfigError for a field without an option."""
    scheme = scheme_of(uri) or ""
    fields = {
        "endpoint": access.endpoint,
        "region": access.region,
        "profile": access.profile,
        "anonymous": access.anonymous,
        "requester_pays": access.requester_pays,
        "bucket_owner": access.bucket_owner,
        "kms_key": access.kms_key,
    }
    options: dict[str, Any] = {}
    for name, value in fields.items():
        if not value:
            continue
        if name not in _OPTIONS.get(scheme, {}):
            raise ConfigError(f"{uri}: storage.*.{name} has no effect on {scheme}://")
        option, fixed = _OPTIONS[scheme][name]
        options[option] = value if fixed is None else fixed
    return options


def _entry(key: str, info: dict[str, Any]) -> Entry:
    tag = info.get("etag") or info.get("md5Hash") or info.get("mtime") or info.get("created") or ""
    if isinstance(tag, datetime):  # the memory file system of fsspec has two types for it
        tag = tag.timestamp()
    return Entry(key, info.get("size"), str(tag))
