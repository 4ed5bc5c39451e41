"""discover: a corpus URI becomes a streamed Parquet manifest of what is still to do.

A listing is not held in memory: 100 million names are written shard by shard, and only their 64-bit ids stay (8 bytes
each) to find collisions. Listing is bound by the store: about 1,000 keys a request on S3. An explicit list is read whole.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from occpipe.config import Corpus
from occpipe.done import Done, etag_hash
from occpipe.errors import StorageError
from occpipe.ledger import MANIFESTS, read_parquet, to_parquet
from occpipe.schemas import MANIFEST
from occpipe.storage import Entry, Store, open_store, split_pattern
from occpipe.storage.open import scheme_of

SHARD_ROWS = 8_192
UNIT_ROWS = 64
"""Rows of a row group, the smallest piece of work: small enough that 1,500 images spread over a machine."""
_LISTS = (".txt", ".parquet")


class Shard(NamedTuple):
    """One file of the manifest, and its rows."""

    key: str
    rows: int


@dataclass(frozen=True, slots=True)
class Discovery:
    """What discover found: the root that keys are relative to, images seen, and the manifest of those to do."""

    root: str
    seen: int
    shards: tuple[Shard, ...]

    @property
    def pending(self) -> int:
        """Images to do."""
        return sum(shard.rows for shard in self.shards)


def image_id(uri: str) -> int:
    """The id of an image: a 64-bit hash (BLAKE2b, signed) of its relative URI, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(uri.encode(), digest_size=8).digest(), "little", signed=True)


def open_corpus(uri: str, corpus: Corpus) -> tuple[str, Iterator[Entry]]:
    """The root of a corpus and its images, streamed.

    `uri` is a folder or prefix, a glob, one image, or a list of URIs (`.txt` with one a line, `.parquet` with a column
    `uri`). A local path that exists is taken as it stands, whatever characters it has. Raises StorageError where it is
    missing or closed to us, and where no image is found.
    """
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix in _LISTS:
        return _open_list(uri, suffix)
    local = Path(uri).expanduser()
    stands = scheme_of(uri) is None and local.exists()
    if suffix in corpus.extensions and not (stands and local.is_dir()):
        folder, _, name = uri.rpartition("/")
        store = open_store(folder or ".")
        entry = store.find(name)
        if entry is not None:
            return store.uri, iter([entry])
    kinds = " ".join(corpus.extensions)
    if stands and local.is_file():
        raise StorageError(f"{uri}: by its name neither an image ({kinds}) nor a list ({' '.join(_LISTS)})")
    root, pattern = (uri, None) if stands else split_pattern(uri)
    store = open_store(root)
    store.check_readable()
    images = (entry for entry in store.walk() if entry.key.lower().endswith(corpus.extensions))
    if pattern is not None:
        matches = re.compile(glob_translate(pattern)).match
        images = (entry for entry in images if matches(entry.key))
    first = next(images, None)
    if first is None:
        raise StorageError(f"{uri}: no image there ({kinds})")
    return store.uri, itertools.chain([first], images)


def check_apart(input_uri: str, root: str, output: str) -> None:
    """Raise StorageError where an image would be written over its source, or cleaned images would be found as input.

    An explicit list says which images it means, so its output may lie anywhere else.
    """
    check_not_over(root, output)
    if PurePosixPath(input_uri).suffix.lower() not in _LISTS:
        check_not_inside(root, output)


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


def discover(
    root: str, entries: Iterator[Entry], output: Store, done: Done, run: int, limit: int | None = None
) -> Discovery:
    """Leave out what is done, and write the manifest of the rest below the output's ledger.

    `root` and `entries` are a corpus as `open_corpus` gives it. Raises StorageError where two different URIs have one
    id (expected once in 4 * 10^9 corpora of 100,000 images).
    """
    shards: list[Shard] = []
    seen: list[np.ndarray] = []
    entries = itertools.islice(entries, limit)
    while chunk := tuple(itertools.islice(entries, SHARD_ROWS)):
        table = _manifest(chunk)
        ids = table.column("image_id").to_numpy()
        seen.append(ids)
        etags = np.array([etag_hash(entry.etag) for entry in chunk], np.int64)
        table = table.filter(pa.array(~done.covers(ids, etags)))
        if len(table):
            shards.append(Shard(f"{MANIFESTS}/{run:06d}/{len(shards):06d}.parquet", len(table)))
            output.write(shards[-1].key, to_parquet(table, row_group_size=UNIT_ROWS))
    ids = np.concatenate([np.empty(0, np.int64), *seen])
    del seen  # a copy of all ids
    ids.sort()
    again = ids[1:][ids[1:] == ids[:-1]]
    if len(again):
        _refuse_collisions(output, shards, {*again.tolist()})
    return Discovery(root, len(ids) - len(again), tuple(shards))


def manifest_rows(output: Store, found: Discovery) -> Iterator[pa.Table]:
    """The manifest in its shards, for a run without Ray."""
    for shard in found.shards:
        yield read_parquet(output, shard.key)


def _manifest(entries: Sequence[Entry]) -> pa.Table:
    # A name that is not UTF-8 cannot stand in Arrow; with backslashes it is refused later, as unsafe, by name.
    uris = [entry.key.encode("utf-8", "backslashreplace").decode() for entry in entries]
    columns = ([image_id(uri) for uri in uris], uris, [e.size for e in entries], [e.etag for e in entries])
    return pa.table([pa.array(values, MANIFEST.types[n]) for n, values in enumerate(columns)], schema=MANIFEST)


def _open_list(uri: str, suffix: str) -> tuple[str, Iterator[Entry]]:
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
    return _list_root(store.uri, uris), (Entry(_list_key(item), None, "") for item in uris)


def _list_root(folder: str, uris: list[str]) -> str:
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


def _list_key(item: str) -> str:
    scheme = scheme_of(item)
    path = item[len(scheme) + 3 :] if scheme else item
    return path.removeprefix("/")


def _refuse_collisions(output: Store, shards: list[Shard], doubled: set[int]) -> None:
    """Raise StorageError for two images with one id, by their names."""
    names: dict[int, str] = {}
    for shard in shards:
        rows = read_parquet(output, shard.key, ["image_id", "uri"])
        for key, uri in zip(rows.column("image_id").to_pylist(), rows.column("uri").to_pylist(), strict=True):
            if key in doubled and names.setdefault(key, uri) != uri:
                raise StorageError(f"two images have one id: {names[key]} and {uri}; rename one of them")
