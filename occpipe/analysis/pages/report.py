"""The report and the review page over a published output: self-contained, and of a few MB whatever the number of rows.

The figures are those of the audit. One streamed pass over narrow columns chooses the rows worth a look; only these are read
whole, with their photos. Each entry has a share of the page's bytes, and its thumbnails shrink until they fit.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from occpipe.analysis.agreement import rating_statistics
from occpipe.analysis.audit import Audit, audit
from occpipe.analysis.pages.entries import Pictures, Room, entry
from occpipe.analysis.pages.figures import summary
from occpipe.analysis.pages.page import assemble
from occpipe.analysis.pages.rows import read_rows
from occpipe.analysis.pages.sample import COLUMNS, Sampler
from occpipe.analysis.pages.why import Why
from occpipe.core.types import Status
from occpipe.dataset.reader import MANY_ROWS, Published
from occpipe.io.images import Limits
from occpipe.io.storage import open_store

PICTURE_BYTES = 5_000_000
"""Bytes of all pictures of a page together."""
TEXT_BYTES = 2_000_000
"""Bytes of all else that a page says of its entries."""
_LARGEST_PICTURE = 60_000
_LARGEST_TEXT = 40_000
_THREADS = 4  # reading waits for storage; each may hold a photo of 100 MP


def write_report(
    output_uri: str,
    input_uri: str | None,
    page: Path,
    most: int,
    verdicts: Sequence[Path] = (),
    made: Audit | None = None,
) -> int:
    """Write the report of a published output, with at most `most` images; returns how many it shows.

    `input_uri` is where its corpus is now, if it has moved; `verdicts` are files of the review page, whose agreement is
    shown; `made` is the output's audit, where it was made already. Raises StorageError where nothing is published at
    `output_uri`, ValueError for a wrong verdicts file.
    """
    published = Published(output_uri)
    why = Why(published.config)
    shown = _entries(published, input_uri, Sampler(why.cut, most), why)
    data = _data(published, why, shown) | {
        "figures": summary(made or audit(output_uri)),
        "people": [line.texts for line in rating_statistics(published, verdicts)] if verdicts else None,
    }
    return _write(page, "report", data)


def write_review(output_uri: str, input_uri: str | None, page: Path, most: int, *, blind: bool) -> int:
    """Write the rating page of a published output, with at most `most` images; returns how many it shows.

    Where it is `blind` it says nothing of what was decided, shows a result only after its photo was judged, and its images
    come in no order. Raises StorageError where nothing is published at `output_uri`.
    """
    published = Published(output_uri)
    why = Why(published.config)
    shown = _entries(published, input_uri, Sampler(why.cut, most, rated=True), why)
    if blind:
        random.Random(0).shuffle(shown)  # noqa: S311 - an order, not a secret
        shown = [_blinded(one) for one in shown]
    data = _data(published, why, shown) | {"blind": blind}
    if blind:
        data["policy"] = None
    return _write(page, "review", data)


def _entries(published: Published, input_uri: str | None, sampler: Sampler, why: Why) -> list[dict[str, Any]]:
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
    drawn = sum((row["width"] is not None) + (row["status"] == Status.CLEANED) for row in rows.values())
    room = Room(
        min(_LARGEST_TEXT, TEXT_BYTES // max(1, len(rows))), min(_LARGEST_PICTURE, PICTURE_BYTES // max(1, drawn))
    )

    def draw(place: int) -> dict[str, Any]:
        row = rows[place]
        return entry(row, chosen[place], why.shares(row), pictures.before_and_after, room)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(draw, chosen))


def _data(published: Published, why: Why, shown: list[dict[str, Any]]) -> dict[str, Any]:
    manifest, config = published.manifest, published.config
    return {
        "id": published.digest,
        "title": published.uri.rstrip("/").rsplit("/", 1)[-1],  # the rest of its address is nobody else's business
        "about": [
            f"{manifest['images']:,} images",
            f"{config.segmenter.model} segmenter",
            f"{config.inpainter.model} inpainter",
            f"config {manifest['config']['digest']}",
        ],
        "blind": False,
        "policy": why.limits,
        "entries": shown,
    }


def _blinded(one: dict[str, Any]) -> dict[str, Any]:
    """An entry without what was decided, its things in the order of the row."""
    things = [item | {"verdict": None, "reason": None, "relation": None, "why": []} for item in one["objects"]]
    hidden: dict[str, Any] = {"status": None, "reason": None, "removed": None, "shows": []}
    return one | hidden | {"objects": sorted(things, key=lambda item: int(item["index"]))}


def _write(page: Path, kind: str, data: dict[str, Any]) -> int:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(assemble(kind, f"{data['title']} · occpipe {kind}", data), encoding="utf-8")
    return len(data["entries"])
