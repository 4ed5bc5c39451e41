"""From a URI to a store."""

from __future__ import annotations

import re

from occpipe.storage.base import Store
from occpipe.storage.generic import FsspecStore
from occpipe.storage.local import LocalStore
from occpipe.storage.s3 import S3Store

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://")
_MAGIC = re.compile(r"[*?\[]")


def scheme_of(uri: str) -> str | None:
    """The scheme of a URI (`s3` for `s3://bucket/x`), None for a local path."""
    match = _SCHEME.match(uri)
    return match.group(1) if match else None


def open_store(uri: str) -> Store:
    """The store whose root is `uri`: a local path, `file://`, `s3://`, or any scheme that fsspec has a driver for.

    Nothing is contacted yet. Raises StorageError for an unknown scheme.
    """
    match scheme_of(uri):
        case None:
            return LocalStore(uri)
        case "file":
            return LocalStore(uri.removeprefix("file://"))
        case "s3":
            return S3Store(uri)
        case _:
            return FsspecStore(uri)


def split_pattern(uri: str) -> tuple[str, str | None]:
    """Split a glob into its root and the pattern below it; the pattern is None where there is none.

    >>> split_pattern("s3://bucket/2019/**/*.jpg")
    ('s3://bucket/2019', '**/*.jpg')
    >>> split_pattern("photos")
    ('photos', None)
    """
    match = _MAGIC.search(uri)
    if match is None:
        return uri, None
    cut = uri.rfind("/", 0, match.start())
    root = uri[:cut] if cut > 0 else ("/" if cut == 0 else ".")
    return root, uri[cut + 1 :]
