"""The page of a paired study: a photo and the results of two runs in random order, without names.

It repeats the user study of the paper: people say of each picture whether it looks natural, and whether something is
missing.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from occpipe.analysis.pages.entries import NoPictureError, Pictures
from occpipe.analysis.pages.page import assemble
from occpipe.analysis.pages.pictures import thumbnails
from occpipe.analysis.pages.types import StudyData, StudyEntry
from occpipe.core.rows import Row
from occpipe.core.types import Image, Status
from occpipe.dataset.reader import MANY_ROWS, Published
from occpipe.io.images import Limits
from occpipe.io.storage import open_store

RUNS = ("original", "first", "second")
"""What a picture is of, as the file of answers names it."""
PICTURE_BYTES = 12_000_000
"""Bytes of all pictures of a page together: they are judged, so they are larger than those of a report."""
MAX_PICTURE_BYTES = 250_000
_THREADS = 4
_COLUMNS = ["uri", "status", "etag", "size", "width", "height", "output", "output_offset", "output_size"]


def write_study(first_uri: str, second_uri: str, input_uri: str | None, page: Path, most: int) -> int:
    """Write the page over two published outputs of one corpus, with at most `most` images; returns how many it shows.

    Images are those that at least one run has changed, chosen by a hash of their names. `input_uri` is where the corpus is
    now, if it has moved. Raises StorageError where nothing is published, ValueError for runs without an image to compare.
    """
    runs = [Published(uri) for uri in (first_uri, second_uri)]
    chosen = heapq.nsmallest(most, {(_hash(uri), uri) for run in runs for uri in _changed(run, most)})
    rows = [_rows(run, [uri for _, uri in chosen]) for run in runs]
    uris = [uri for _, uri in chosen if all(uri in found for found in rows)]
    if not uris:
        raise ValueError("no image was cleaned in one of these runs and is in both")
    corpus = runs[0].config.corpus
    source = open_store(input_uri or runs[0].manifest["input"])
    limits = Limits(corpus.max_pixels, 1)
    readers = [Pictures(source, run.store, limits, corpus.max_bytes) for run in runs]
    room = min(MAX_PICTURE_BYTES, PICTURE_BYTES // (len(RUNS) * len(uris)))

    def draw(uri: str) -> StudyEntry | None:
        try:
            return _entry(uri, [found[uri] for found in rows], readers, room)
        except NoPictureError:
            return None

    with ThreadPoolExecutor(_THREADS) as pool:
        entries = [entry for entry in pool.map(draw, uris) if entry]
    digest = hashlib.sha256("".join(run.digest for run in runs).encode()).hexdigest()[:16]
    data: StudyData = {"id": digest, "title": "Which pictures look natural?", "entries": entries}
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(assemble("study", f"{data['title']} · occpipe study", data), encoding="utf-8")
    return len(entries)


def _entry(uri: str, rows: list[Row], readers: list[Pictures], room: int) -> StudyEntry:
    """The pictures of an image in an order of its own; runs that left it as it is share the picture of the original."""
    pictures: list[Image] = []
    shows: list[list[str]] = []
    for run, row, reader in zip(RUNS[1:], rows, readers, strict=True):
        drawn = list(reader.before_and_after(row))
        if not pictures:
            pictures, shows = [drawn[0]], [[RUNS[0]]]
        if row["status"] == Status.CLEANED:
            pictures.append(drawn[1])
            shows.append([run])
        else:
            shows[0].append(run)
    order = sorted(range(len(pictures)), key=lambda place: _hash(f"{uri}\n{place}"))
    files = thumbnails(pictures, room)
    return {"image": uri, "pictures": [{"src": files[place], "runs": shows[place]} for place in order]}


def _changed(run: Published, most: int) -> list[str]:
    def uris() -> Iterator[str]:
        for table in run.batches(["uri", "status"], MANY_ROWS):
            yield from table.filter(pc.equal(table.column("status"), Status.CLEANED)).column("uri").to_pylist()

    return heapq.nsmallest(most, uris(), key=_hash)


def _rows(run: Published, uris: list[str]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for table in run.batches(_COLUMNS, MANY_ROWS):
        here = table.filter(pc.is_in(table.column("uri"), pa.array(uris, pa.string())))
        rows |= {row["uri"]: row for row in here.to_pylist() if row["status"] in (Status.CLEANED, Status.UNCHANGED)}
    return rows


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
