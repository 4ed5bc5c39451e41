"""An explicit list of images: a file that names them, or a folder of such files, as Spark writes it. It is read whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from occpipe.core.access import access_of
from occpipe.core.errors import StorageError, first_line
from occpipe.dataset.list_formats import SUFFIXES, ListFormatError, names_in
from occpipe.io.storage import Entry, Span, Store, is_safe_key, locate, open_store, scheme_of, split_name, with_retries

MAX_CHECKED = 1_000
"""Images of a list that are checked until one is there."""
_THREADS = 16
_SLASHES = re.compile(r"/(?:\./|/)+")


def find_list(place: str, extensions: tuple[str, ...]) -> list[str] | None:
    """The names in the list at `place`, each once; None where there is none, such as a folder of photos of that name.

    Raises StorageError for a list that cannot be read, or is empty.
    """
    suffix = PurePosixPath(place).suffix.lower()
    folder, name = split_name(place)
    if suffix not in SUFFIXES or not name:
        return None
    store = open_store(folder, access_of(place))
    try:
        keys = [name] if store.find(name) else _parts(store, name, suffix)
        if not keys:
            return None
        names = [one for key in keys for one in names_in(store.read(key), suffix, extensions)]
    except (OSError, ListFormatError) as error:
        raise StorageError(f"{place}: {error}") from error
    if not names:
        raise StorageError(f"{place}: the list is empty")
    return list(dict.fromkeys(names))  # an image that is named twice is one image


def read_list(place: str, names: Sequence[str]) -> tuple[str, tuple[Entry, ...]]:
    """The root of a list and its images.

    Raises StorageError for a list with several kinds of URI, or of which nothing can be read.
    """
    folder = split_name(place)[0]
    places = [_root_and_key(name, folder) for name in names]
    roots = sorted({root for root, _ in places})
    if len(roots) > 1:
        kinds = ", ".join("relative paths" if root == folder else root for root in roots)
        raise StorageError(f"{place}: a list must hold one kind of URI, this one has {kinds}")
    if roots[0] in ("http://", "https://"):
        fetch = "fetch them first (img2dataset does that well)"
        raise StorageError(f"{place}: a list of web addresses is not supported: {fetch}")
    keys = list(dict.fromkeys(key for _, key in places))
    store = open_store(roots[0], access_of(place))
    _check_any(place, store, keys)
    return store.uri, tuple(Entry(key, None, "") for key in keys)


def _parts(store: Store, folder: str, suffix: str) -> list[str]:
    """The files of a list that is a folder; none where other files lie beside them."""
    entries, _ = store.list_keys(Span(folder), MAX_CHECKED)
    visible = [entry.key for entry in entries if not entry.key.rpartition("/")[2].startswith(("_", "."))]
    if not visible or any(not key.lower().endswith(suffix) for key in visible):
        return []
    keys = [entry.key for entry in store.walk(folder)]
    return [key for key in keys if not key.rpartition("/")[2].startswith(("_", "."))]


def _root_and_key(name: str, folder: str) -> tuple[str, str]:
    """The root of a name and its key there: relative names begin at the folder of the list."""
    if name.lower().startswith("file:/") or name.startswith("~/"):
        name = locate(name)
    if scheme := scheme_of(name):
        root, _, key = locate(name).partition("://")
        return f"{root}://", key if scheme not in ("http", "https") else name
    path = _SLASHES.sub("/", name.replace("\\", "/"))
    if path.startswith("/"):
        return "/", path[1:]
    return folder, path.removeprefix("./")


def _check_any(place: str, store: Store, keys: Sequence[str]) -> None:
    """Raise StorageError where no image of a list is there, or none of the first `MAX_CHECKED`."""

    def fault(key: str) -> str | None:
        if not is_safe_key(key):
            return "its name would lead out of the folder of the list, or is none of this system"
        try:
            return None if with_retries(lambda: store.find(key)) else "it is not there"
        except OSError as error:
            return first_line(error)

    faults: list[str | None] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, min(len(keys), MAX_CHECKED), _THREADS):
            faults += pool.map(fault, keys[start : start + _THREADS])
            if None in faults:
                return
    first = f"none of its {len(keys)} images can be read, the first is {store.url(keys[0])!r}: {faults[0]}"
    hint = "relative names begin at the folder of the list, and `aws s3 ls` leaves out the bucket"
    raise StorageError(f"{place}: {first}; {hint}")
