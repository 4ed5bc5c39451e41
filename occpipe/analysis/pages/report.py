"""The report and the review page over a published output: self-contained, and a few MB for any number of rows.

The figures are those of the audit. One streamed pass over narrow columns chooses the rows worth a look. Only these are
read whole, with their photos. Each entry has a share of the page's bytes, and its thumbnails shrink until they fit.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from occpipe.analysis.agreement import rating_statistics
from occpipe.analysis.audit import Audit, audit
from occpipe.analysis.pages.entries import ByteLimits, Pictures, page_entry
from occpipe.analysis.pages.figures import figures_of
from occpipe.analysis.pages.page import assemble
from occpipe.analysis.pages.rows import read_rows
from occpipe.analysis.pages.sample import COLUMNS, Sampler
from occpipe.analysis.pages.types import PageData, PageEntry
from occpipe.analysis.pages.why import Why
from occpipe.core.types import Status
from occpipe.dataset.reader import MANY_ROWS, Published
from occpipe.io.images import Limits
from occpipe.io.storage import open_store

PICTURE_BYTES = 5_000_000
"""Bytes of all pictures of a page together."""
TEXT_BYTES = 2_000_000
"""Bytes of the texts of all entries together."""
_MAX_PICTURE = 60_000
_MAX_TEXT = 40_000
_THREADS = 4  # reading waits for storage; each may hold a photo of 100 MP


def write_report(
    output_uri: str,
    input_uri: str | None,
    page: Path,
    count: int,
    verdicts: Sequence[Path] = (),
    known_audit: Audit | None = None,
) -> int:
    """Write the report of a published output.

    Args:
        output_uri: The output of a run.
        input_uri: The place of its corpus now, if it has moved.
        page: The file to write.
        count: Images of the page at most.
        verdicts: Files of the review page; the report shows their statistics.
        known_audit: The audit of the output, where the caller has it.

    Returns:
        How many images the page has.

    Raises:
        StorageError: Nothing is published at `output_uri`.
        ValueError: A verdicts file is wrong.
    """
    published = Published(output_uri)
    why = Why(published.config)
    data = _data(published, why, _entries(published, input_uri, Sampler(why.cut, count), why))
    data["figures"] = figures_of(known_audit or audit(output_uri))
    data["people"] = [line.texts for line in rating_statistics(published, verdicts)] if verdicts else None
    return _write(page, "report", data)


def write_review(output_uri: str, input_uri: str | None, page: Path, count: int, *, blind: bool) -> int:
    """Write the rating page of a published output, with at most `count` images; returns how many it shows.

    A `blind` page has no verdicts of occpipe, shows a result only after its photo was judged, and has its images in random
    order. Raises StorageError where nothing is published at `output_uri`.
    """
    published = Published(output_uri)
    why = Why(published.config)
    data = _data(published, why, _entries(published, input_uri, Sampler(why.cut, count, rated=True), why))
    if blind:
        random.Random(0).shuffle(data["entries"])  # noqa: S311 - an order, not a secret
        data["entries"] = [_blinded(entry) for entry in data["entries"]]
        data |= {"blind": True, "policy": None}
    return _write(page, "review", data)


def _entries(published: Published, input_uri: str | None, sampler: Sampler, why: Why) -> list[PageEntry]:
    for table in published.batches(COLUMNS, MANY_ROWS):
        sampler.add(table)
    chosen = sampler.chosen()
    corpus = published.config.corpus
    pictures = Pictures(
        open_store(input_uri or published.manifest["input"]),
        published.store,
        Limits(corpus.max_pixels, 1),
        corpus.max_bytes,
    )
    rows = read_rows(published, list(chosen))
    pictures_shown = sum((row["width"] is not None) + (row["status"] == Status.CLEANED) for row in rows.values())
    text_bytes, picture_bytes = TEXT_BYTES // max(1, len(rows)), PICTURE_BYTES // max(1, pictures_shown)
    limits = ByteLimits(min(_MAX_TEXT, text_bytes), min(_MAX_PICTURE, picture_bytes))

    def entry_at(place: int) -> PageEntry:
        row = rows[place]
        return page_entry(row, chosen[place], why.shares(row), pictures.before_and_after, limits)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(entry_at, chosen))


def _data(published: Published, why: Why, entries: list[PageEntry]) -> PageData:
    manifest, config = published.manifest, published.config
    return {
        "id": published.digest,
        "title": published.uri.rstrip("/").rsplit("/", 1)[-1],  # the rest of its address is private
        "about": [
            f"{manifest['images']:,} images",
            f"{config.segmenter.model} segmenter",
            f"{config.inpainter.model} inpainter",
            f"config {manifest['config']['digest']}",
        ],
        "blind": False,
        "policy": why.limits,
        "entries": entries,
    }


def _blinded(entry: PageEntry) -> PageEntry:
    """An entry without verdicts and reasons, its things in the order of the row."""
    for item in entry["objects"]:
        item |= {"verdict": None, "reason": None, "relation": None, "why": []}
    entry["objects"].sort(key=lambda item: item["index"])
    return entry | {"status": None, "reason": None, "removed": None, "shows": []}


def _write(page: Path, kind: str, data: PageData) -> int:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(assemble(kind, f"{data['title']} · occpipe {kind}", data), encoding="utf-8")
    return len(data["entries"])
