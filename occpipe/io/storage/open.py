"""Opens the store of a URI."""

from __future__ import annotations

import functools
import re

from occpipe.core.access import Access, Address, access_of
from occpipe.io.storage.base import Store
from occpipe.io.storage.generic import FsspecStore
from occpipe.io.storage.local import LocalStore
from occpipe.io.storage.location import locate, scheme_of
from occpipe.io.storage.s3 import S3Store

BRACES = re.compile(r"\{(\d+\.\.\d+|[^{}/]*,[^{}/]*)\}")
"""Braces that stand for numbers or names, as in shells; others are characters of a name."""
_MAGIC = re.compile(rf"[*?\[]|{BRACES.pattern}")


def open_store(uri: str, access: Access | None = None) -> Store:
    """The store with the root `uri`: any text that `locate` accepts, in any scheme with a driver for fsspec.

    A scheme alone, such as `s3://`, is the root of its buckets; lists of URIs are read from it. Nothing is contacted yet.

    Args:
        uri: The root.
        access: How it is reached; by default the access of an `Address`, else the settings of the environment.

    Raises:
        ConfigError: The text is not a place, or its scheme has no option for the access.
        StorageError: The scheme is unknown.
    """
    place = Address(uri if uri.endswith("://") else locate(uri), access or access_of(uri))
    match scheme_of(place):
        case None:
            return LocalStore(place)
        case "s3":
            return S3Store(place)
        case _:
            return FsspecStore(place)


def store_of(uri: str) -> Store:
    """The store at `uri`, one for each URI and access in a process, so that its threads share a connection pool."""
    return _cached(str(uri), access_of(uri))


@functools.cache
def _cached(uri: str, access: Access) -> Store:
    return open_store(uri, access)


def split_pattern(uri: str) -> tuple[str, str | None]:
    """Split a glob into its root and the pattern below it; the pattern is None if there is none.

    >>> split_pattern("s3://bucket/2019/**/*.jpg")
    ('s3://bucket/2019', '**/*.jpg')
    >>> split_pattern("s3://bucket/{00000..09999}.tar")
    ('s3://bucket', '{00000..09999}.tar')
    >>> split_pattern("photos")
    ('photos', None)
    """
    match = _MAGIC.search(uri)
    if match is None:
        return uri, None
    cut = uri.rfind("/", 0, match.start())
    root = uri[:cut] if cut > 0 else ("/" if cut == 0 else ".")
    return root, uri[cut + 1 :]
