"""An index of annotations on the disk of a node, by the names of images: no worker holds the files in memory.

COCO files are read as a stream, and Parquet files batch by batch. What came from the same files is indexed once a node.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import quote

import pyarrow.parquet as pq

from occpipe.core.classes import is_thing
from occpipe.core.errors import ConfigError, first_line
from occpipe.io.json_stream import CHUNK_BYTES, array_elements
from occpipe.io.storage import Entry, Store
from occpipe.io.storage.local import alone_in

logger = logging.getLogger(__name__)

MAX_ANNOTATIONS = 10_000
"""Annotations of one image that are read; a crowded photo of COCO has 93."""
MAX_NAMESAKES = 1_000
"""Images with the same last part of their names that are looked at for one."""
BATCH = 5_000
_ENDINGS = (".json", ".parquet")
_NO_CLASS = ("other", "things", "unlabeled", "background")
"""Categories for what is none of the classes."""
_SCHEMA = """
CREATE TABLE category (file INTEGER, id TEXT, name TEXT, is_thing INTEGER, PRIMARY KEY (file, id));
CREATE TABLE image (
    file INTEGER, id TEXT, name TEXT, base TEXT, height INTEGER, width INTEGER, PRIMARY KEY (file, id)
);
CREATE TABLE annotation (file INTEGER, image TEXT, body TEXT);
CREATE TABLE source (file INTEGER, key TEXT, sha256 TEXT);
"""
_INDEXES = """
CREATE INDEX by_name ON image (name);
CREATE INDEX by_base ON image (base);
CREATE INDEX by_image ON annotation (file, image);
"""


class Category(NamedTuple):
    """A class of annotations; `is_thing` is None for what is no class."""

    name: str
    is_thing: bool | None


class Annotation(NamedTuple):
    """What a file says of one thing or one region of stuff: `segmentation` or `bbox`, or `id` in the picture `png`."""

    category: Category
    body: dict[str, Any]


class LabelledImage(NamedTuple):
    """An image in a file of annotations: the key of the file, its height and width (0: not given), its annotations."""

    key: str
    height: int
    width: int
    annotations: list[Annotation]


class AnnotationIndex:
    """Annotations by the names of images. `sha256` is that of the files, in their order."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False)
        self._lock = Lock()
        sums = [digest for (digest,) in self._query("SELECT sha256 FROM source ORDER BY file")]
        self.sha256: str = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
        rows = self._query("SELECT DISTINCT name, is_thing FROM category ORDER BY name")
        self.categories = [_category(name, thing) for name, thing in rows]
        self.has_stuff = any(category.is_thing is False for category in self.categories)

    def find(self, uri: str) -> list[LabelledImage]:
        """What the files have of an image; nothing where none names it.

        A name counts that is the URI, or ends as it does, or as which it ends: `val2017/1.jpg` is `1.jpg`. Raises
        ValueError where several images could be meant.
        """
        select = "SELECT file, id, name, height, width FROM image WHERE"
        matching = self._query(f"{select} name = ?", uri)
        if not matching:
            rows = self._query(f"{select} base = ? LIMIT ?", uri.rpartition("/")[2], MAX_NAMESAKES)
            matching = [row for row in rows if f"/{uri}".endswith(f"/{row[2]}") or f"/{row[2]}".endswith(f"/{uri}")]
        names = {row[2] for row in matching}
        if len(names) > 1:
            raise ValueError(f"several images of the annotations could be meant: {', '.join(sorted(names)[:3])}")
        return [self._labelled(file, image, height, width) for file, image, _, height, width in matching]

    def _labelled(self, file: int, image: str, height: int, width: int) -> LabelledImage:
        ((key,),) = self._query("SELECT key FROM source WHERE file = ?", file)
        query = "SELECT body FROM annotation WHERE file = ? AND image = ? ORDER BY rowid LIMIT ?"
        annotations: list[Annotation] = []
        for (text,) in self._query(query, file, image, MAX_ANNOTATIONS):
            body = json.loads(text)
            segments = body.get("segments_info")
            parts = [body] if segments is None else [{"png": body["file_name"], **part} for part in segments]
            annotations += [Annotation(self._category_of(file, str(part["category_id"])), part) for part in parts]
        if len(annotations) >= MAX_ANNOTATIONS:
            raise ValueError(f"it has {MAX_ANNOTATIONS} annotations or more")
        return LabelledImage(key, height, width, annotations)

    def _category_of(self, file: int, number: str) -> Category:
        rows = self._query("SELECT name, is_thing FROM category WHERE file = ? AND id = ?", file, number)
        if not rows:
            raise ValueError(f"there is no category {number:.40}")
        return _category(*rows[0])

    def _query(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(query, values).fetchall()


def open_index(store: Store, name: str, folder: Path) -> AnnotationIndex:
    """The index of a file below a store, of all files there that a pattern names, or of a folder ("").

    It is made in `folder` where it is not there yet. Raises ConfigError where there are no such files, or where one cannot
    be read as annotations; OSError as the store does.
    """
    entries = list(_files(store, name))
    if not entries:
        raise ConfigError(f"segmenter.model: there is no .json or .parquet at {store.url(name)}")
    source, state = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in (store.url(name), repr(entries)))
    path = folder / f"{source}-{state}.sqlite"
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        if not path.exists():
            for old in folder.glob(f"{source}-*.sqlite"):
                old.unlink()
            with tempfile.TemporaryDirectory(dir=folder) as beside:
                whole = Path(beside) / path.name
                _build(whole, store, [entry.key for entry in entries])
                whole.rename(path)
    return AnnotationIndex(path)


def _files(store: Store, name: str) -> Iterator[Entry]:
    is_pattern = any(mark in name for mark in "*?[")
    if name and not is_pattern and (entry := store.find(name)):
        yield entry
        return
    for entry in store.walk("" if is_pattern else name):
        if entry.key.endswith(_ENDINGS) and (not is_pattern or fnmatchcase(entry.key, name)):
            yield entry


def _build(path: Path, store: Store, keys: list[str]) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;" + _SCHEMA)
        for number, key in enumerate(keys):
            logger.info("annotations: %s is indexed (%s of %s)", store.url(key), number + 1, len(keys))
            digest = hashlib.sha256()
            try:
                with store.open(key) as file:
                    if key.endswith(".parquet"):
                        while chunk := file.read(CHUNK_BYTES):
                            digest.update(chunk)
                        file.seek(0)
                        _insert(database, _parquet_rows(number, pq.ParquetFile(file)))
                    else:
                        _insert(database, _json_rows(number, array_elements(file, digest.update)))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                raise ConfigError(f"segmenter.model: {store.url(key)} cannot be used: {first_line(error)}") from error
            database.execute("INSERT INTO source VALUES (?, ?, ?)", (number, key, digest.hexdigest()))
        database.executescript(_INDEXES)
    finally:
        database.close()


def _insert(database: sqlite3.Connection, rows: Iterable[tuple[str, tuple[object, ...]]]) -> None:
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        database.execute("BEGIN")
        for table in {table for table, _ in batch}:
            values = [row for name, row in batch if name == table]
            marks = ", ".join("?" * len(values[0]))
            database.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)  # noqa: S608 - our names
        database.execute("COMMIT")


def _json_rows(file: int, elements: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The rows of a COCO or LVIS file: instances, stuff or panoptic."""
    count = 0
    for key, item in elements:
        if key == "images":
            name = item.get("file_name") or "/".join(str(item["coco_url"]).rsplit("/", 2)[1:])
            yield _image_row(file, item["id"], name, item.get("height"), item.get("width"))
        elif key == "categories":
            yield "category", (file, str(item["id"]), item["name"], _thing(item))
        elif key == "annotations" and ("category_id" in item or "segments_info" in item):
            kept = ("category_id", "segmentation", "bbox", "iscrowd", "score", "segments_info", "file_name")
            count += 1
            yield (
                "annotation",
                (file, str(item["image_id"]), _body({name: item[name] for name in kept if name in item})),
            )
    if not count:
        raise ValueError("it has no annotations with a category_id or segments_info")


def _parquet_rows(file: int, table: pq.ParquetFile) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The rows of a Parquet file with a row for each annotation: `file_name`, `category`, `segmentation` or `bbox`."""
    columns = ("file_name", "category", "height", "width", "segmentation", "bbox", "iscrowd", "score")
    missing = {"file_name", "category"} - {*table.schema_arrow.names}
    if missing:
        raise ValueError(f"it has no column {' and '.join(sorted(missing))}")
    image = None
    for batch in table.iter_batches(BATCH, columns=[name for name in columns if name in table.schema_arrow.names]):
        for item in batch.to_pylist():
            name, category = item.pop("file_name"), item.pop("category")
            if name != image:
                image = name
                yield _image_row(file, name, name, item.get("height"), item.get("width"))
            if category is None:
                continue  # an image without things
            if isinstance(item.get("segmentation"), str):
                item["segmentation"] = json.loads(item["segmentation"])
            yield "category", (file, category, category, _thing({"name": category}))
            body = {key: value for key, value in item.items() if value is not None and key not in ("height", "width")}
            yield "annotation", (file, name, _body({"category_id": category, **body}))


def _image_row(file: int, number: object, name: str, height: object, width: object) -> tuple[str, tuple[object, ...]]:
    name = re.sub(r"^(?:\.{0,2}/)+", "", name.replace("\\", "/"))
    return "image", (file, str(number), name, name.rpartition("/")[2], int(str(height or 0)), int(str(width or 0)))


def _thing(item: dict[str, Any]) -> int | None:
    if item["name"] in _NO_CLASS:
        return None
    return int(item["isthing"] if "isthing" in item else is_thing(item["name"]))


def _body(item: dict[str, Any]) -> str:
    return json.dumps(item, separators=(",", ":"))


def _category(name: str, thing: int | None) -> Category:
    return Category(name, None if thing is None else bool(thing))


def cache_folder() -> Path:
    """Where the indexes of this node lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "occpipe" / "labels"
