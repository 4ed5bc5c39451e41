"""An explicit list of images: a text file with one URI a line, or a Parquet file with a column `uri`. It is read whole."""

from __future__ import annotations

import codecs

import pyarrow as pa
import pyarrow.parquet as pq

from occpipe.errors import StorageError
from occpipe.storage import Entry, open_store
from occpipe.storage.open import scheme_of

SUFFIXES = (".txt", ".parquet")


def read_list(uri: str, suffix: str) -> tuple[str, tuple[Entry, ...]]:
    """The root of a list and its images; raises StorageError where it is none, or is empty."""
    folder, _, name = uri.rpartition("/")
    store = open_store(folder or ".")
    try:
        data = store.read(name)
    except OSError as error:
        raise StorageError(f"{uri}: {error}") from error
    if suffix == ".parquet":
        try:
            uris = pq.read_table(pa.BufferReader(data), columns=["uri"]).column("uri").cast(pa.string()).to_pylist()
        except (pa.ArrowException, KeyError, OSError) as error:
            raise StorageError(f"{uri}: no Parquet file with a column `uri` ({error})") from error
        if None in uris:
            raise StorageError(f"{uri}: row {uris.index(None)} has no uri")
    else:
        lines = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape").split("\n")
        uris = [line.rstrip("\r") for line in lines if line.strip()]
    if not uris:
        raise StorageError(f"{uri}: the list is empty")
    uris = list(dict.fromkeys(uris))  # an image that is named twice is one image
    return _root_of(store.uri, uris), tuple(Entry(_key_of(item), None, "") for item in uris)


def _root_of(folder: str, uris: list[str]) -> str:
    """Relative entries lie below the list's folder; absolute ones share the root of their scheme."""
    schemes = {scheme_of(item) or ("/" if item.startswith("/") else "") for item in uris}
    if len(schemes) > 1:
        kinds = ", ".join(sorted(scheme or "relative paths" for scheme in schemes))
        raise StorageError(f"a list must hold one kind of URI, this one has {kinds}")
    match schemes.pop() if schemes else "":
        case "":
            return folder
        case "/" | "file":
            return "/"
        case "http" | "https":
            raise StorageError(
                "a list of web addresses is not supported: fetch them first (img2dataset does that well)"
            )
        case scheme:
            return f"{scheme}://"


def _key_of(item: str) -> str:
    scheme = scheme_of(item)
    path = item[len(scheme) + 3 :] if scheme else item
    return path.removeprefix("/")
