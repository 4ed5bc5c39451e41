"""What INPUT is: images below a folder or prefix, by their names; a glob; one image; or a list."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fsspec.utils import glob_translate

from occpipe.core.access import access_of
from occpipe.core.errors import StorageError, first_line
from occpipe.dataset.list_formats import SUFFIXES
from occpipe.dataset.uri_list import find_list, read_list
from occpipe.io.containers import ENDINGS
from occpipe.io.containers.parquet import BrokenParquetError, image_column, reading
from occpipe.io.storage import (
    BRACES,
    Access,
    Address,
    Entry,
    Span,
    Store,
    locate,
    open_store,
    scheme_of,
    split_name,
    split_pattern,
)

if TYPE_CHECKING:
    from occpipe.core import config

FEW_KEYS = 1_000
"""Keys that are looked at, at a time, until there is an image among them."""
HIDDEN, LINK, NO_ENDING, OTHER = "hidden", "links to folders", "no ending", "other endings"
_MAX_ENDINGS = 20
_MAX_ENDING = 12  # characters
_HIDDEN = re.compile(r"(?:^|/)(?:\.|@eaDir/|#recycle/|__MACOSX/|\$RECYCLE\.BIN/|System Volume Information/)")


@dataclass(frozen=True, slots=True)
class Corpus:
    """The images below `root` in `spans`, by extension and glob pattern, or explicit `entries`.

    `hidden` takes files with a dot at the beginning of their name or of a folder's, and what systems put beside photos.
    With `members` these are containers, whose images have such endings, or lie in a `column`.
    """

    root: str
    extensions: tuple[str, ...]
    spans: tuple[Span, ...] = (Span(),)
    pattern: str | None = None
    entries: tuple[Entry, ...] | None = None
    is_list: bool = False
    hidden: bool = False
    members: tuple[str, ...] = ()
    column: str | None = None

    def is_member(self, name: str) -> bool:
        """Whether a name within a container is that of an image."""
        return name.lower().endswith(self.members) and (self.hidden or not _HIDDEN.search(name))

    def images(self, entries: Sequence[Entry]) -> tuple[list[Entry], Counter[str]]:
        """Those objects that are images of the corpus, by their names, and how many others were passed over, by kind."""
        if self.pattern is not None:
            matches = _matcher(self.pattern)
            entries = [entry for entry in entries if matches(entry.key)]
        images: list[Entry] = []
        passed = Counter[str]()
        for entry in entries:
            if not self.hidden and _HIDDEN.search(entry.key):
                passed[HIDDEN] += 1
            elif entry.key.lower().endswith(self.extensions):
                images.append(entry)
            else:
                passed[_kind(entry.key)] += 1
        return images, passed


def describe_passed(passed: Mapping[str, int]) -> str:
    """`12 .heic, 3 hidden`, the most frequent first; nothing where there are none."""
    return ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(passed.items(), key=lambda item: (-item[1], item[0]))
    )


def bounded(passed: Counter[str]) -> dict[str, int]:
    """The counts with the most frequent endings by name: names of files are free, and may all end in another way."""
    kept = dict(passed.most_common(_MAX_ENDINGS))
    rest = passed.total() - sum(kept.values())
    return dict(sorted({**kept, **({OTHER: kept.get(OTHER, 0) + rest} if rest else {})}.items()))


def _kind(key: str) -> str:
    if key.endswith("/"):
        return LINK
    ending = PurePosixPath(key).suffix.lower()
    return ending if ending and len(ending) <= _MAX_ENDING and ending.isprintable() else NO_ENDING


def open_corpus(uri: str, settings: config.Corpus, access: Access | None = None) -> Corpus:
    """The corpus at `uri`, whose store is reached by `access`.

    `uri` is a folder or prefix, a glob, one image, or a list of them (see `list_formats`); or containers of images, tars or
    Parquet files, in place of images. A local path that exists is
    taken as it stands, whatever characters it has. Raises StorageError where it is missing or closed to us, and where no
    image is found.
    """
    extensions, place = settings.extensions, Address(locate(uri, "INPUT"), access or access_of(uri))
    containers = partial(Corpus, hidden=settings.hidden, members=extensions, column=settings.image_column)
    if (kind := _container(place)) and (named := _containers_at(place, settings.image_column)):
        return containers(named[0], (kind,), entries=named[1])
    names = find_list(place, extensions)
    if names is not None:
        root, entries = read_list(place, names)
        return Corpus(root, extensions, entries=entries, is_list=True)
    local = Path(place)
    stands = scheme_of(place) is None and local.exists()
    folder, name = split_name(place)
    if name.lower().endswith(extensions) and not (stands and local.is_dir()):
        store = open_store(folder, place.access)
        entry = store.find(name)
        if entry is not None:
            return Corpus(store.uri, extensions, entries=(entry,))
    if stands and local.is_file():
        kinds = " ".join(extensions)
        raise StorageError(f"{uri}: by its name neither an image ({kinds}) nor a list ({' '.join(SUFFIXES)})")
    root, pattern = (place, None) if stands else split_pattern(place)
    store = open_store(root, place.access)
    store.check_readable()
    if pattern is not None and (kind := _container(pattern)):
        return containers(store.uri, (kind,), pattern=pattern)
    corpus = Corpus(store.uri, extensions, pattern=pattern, hidden=settings.hidden)
    spans, passed = list(corpus.spans), Counter[str]()
    while spans:  # until the first image
        some, left = store.list_keys(spans.pop(0), FEW_KEYS)
        images, others = corpus.images(some)
        if images:
            return corpus
        if pattern is None and (kind := _kind_among(store, some, settings.image_column)):
            return containers(store.uri, (kind,))
        passed += others
        spans[:0] = left
    beside = f"; passed over: {describe_passed(bounded(passed))}" if passed else ""
    raise StorageError(f"{uri}: no image there ({' '.join(extensions)}){beside}")


def _container(name: str) -> str | None:
    """The ending of a name, where it is that of a container."""
    return next((ending for ending in ENDINGS if name.lower().endswith(ending)), None)


def _containers_at(place: Address, column: str | None) -> tuple[str, tuple[Entry, ...] | None] | None:
    """The root and the entry of a container at a place with such a name; no entry where it is a folder of containers.

    None where it is another folder, or a list of images.
    """
    folder, name = split_name(place)
    store = open_store(folder, place.access)
    entry = store.find(name)
    if entry is not None:
        is_list = _container(name) == ".parquet" and not _has_images(store, name, column)
        return None if is_list else (store.uri, (entry,))
    store = open_store(place, place.access)  # Spark writes folders whose names end so
    return (store.uri, None) if _kind_among(store, store.list_keys(Span(), FEW_KEYS)[0], column) == ".parquet" else None


def _kind_among(store: Store, entries: Sequence[Entry], column: str | None) -> str | None:
    """The kind of container among some keys, none of which is an image; tars before Parquet files, which may lie beside."""
    for ending in ENDINGS:
        keys = [entry.key for entry in entries if entry.key.lower().endswith(ending)]
        if keys and (ending == ".tar" or _has_images(store, keys[0], column)):
            return ending
    return None


def _has_images(store: Store, key: str, column: str | None) -> bool:
    """Whether a Parquet file has a column of images; one that is broken may have."""
    try:
        with store.open(key) as opened, reading(opened) as file:
            return column is not None or image_column(file.schema_arrow) is not None
    except BrokenParquetError:
        return False
    except OSError as error:
        raise StorageError(f"{store.url(key)}: {first_line(error)}") from error


def check_apart(corpus: Corpus, output: str) -> None:
    """Raise StorageError where an image would be written over its source, or cleaned images would be found as input.

    The output of a list or of one image may lie beside the images, because no other image is read. So may that of a glob
    without `**`, which reads one level of folders, above that of the written files.
    """
    is_one = corpus.entries is not None and not corpus.is_list
    if is_one and output.lower().endswith(corpus.extensions):
        raise StorageError(f"{output} is named as an image is, and OUTPUT is a folder, for images/ and metadata/")
    if "://" not in output and Path(output).is_file():
        raise StorageError(f"{output} is a file, and OUTPUT is a folder, for images/ and metadata/")
    if not (is_one and corpus.root == output):
        check_not_over(corpus.root, output)
    if corpus.entries is None and (corpus.pattern is None or "**" in corpus.pattern):
        check_not_inside(corpus.root, output)


def check_not_inside(root: str, output: str) -> None:
    """Raise StorageError where cleaned images would be found as input."""
    root, output = root.rstrip("/"), output.rstrip("/")
    if output.startswith(f"{root}/"):
        raise StorageError(f"{output} lies inside the input {root}: later runs would take cleaned images for photos")


def check_not_over(root: str, output: str) -> None:
    """Raise StorageError where an image would be written over its source."""
    root, output = root.rstrip("/"), output.rstrip("/")
    if root == output or re.fullmatch(rf"{re.escape(output)}/images(\.v\d+)?(/.*)?", root):
        raise StorageError(f"{output} would be written over its own input: choose another output")


@functools.lru_cache(1)
def _matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a key matches a glob in which braces may stand for names or numbers: `{a,b}`, `{000..123}`."""
    groups: list[str] = []
    bounds: dict[str, tuple[int, int]] = {}

    def hold(match: re.Match[str]) -> str:
        number = len(groups)
        if ends := re.fullmatch(r"(\d+)\.\.(\d+)", match[1]):
            bounds[f"n{number}"] = int(ends[1]), int(ends[2])
            digits = rf"\d{{{len(ends[1])}}}" if len(ends[1]) == len(ends[2]) else r"(?:0|[1-9]\d*)"
            groups.append(f"(?P<n{number}>{digits})")
        else:
            groups.append(f"(?:{'|'.join(map(re.escape, match[1].split(',')))})")
        return f"\ue000{number}\ue001"

    held = glob_translate(BRACES.sub(hold, pattern))
    compiled = re.compile(re.sub("\ue000(\\d+)\ue001", lambda match: groups[int(match[1])], held))

    def matches(key: str) -> bool:
        match = compiled.match(key)
        return match is not None and all(low <= int(match[name]) <= high for name, (low, high) in bounds.items())

    return matches
