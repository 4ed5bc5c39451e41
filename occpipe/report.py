"""A self-contained page over the published rows: before and after, and why each thing was removed.

Pictures are thumbnails inside the page, and their number is bounded, so a corpus of any size gives a page of some MB.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image as Pil

from occpipe.images import ImageError, Limits, decode
from occpipe.masks import Rle, rle_decode
from occpipe.preview import overlay
from occpipe.published import Published
from occpipe.storage import Store, open_store
from occpipe.types import Status, Verdict

THUMBNAIL = 420
"""Long side of a picture in the page, in pixels."""
_RED = (214, 40, 40)
_PAGE = Path(__file__).parent / "data" / "report.html"


def write_report(output_uri: str, input_uri: str | None, page: Path, most: int) -> int:
    """Write the page of a published output, with at most `most` images; returns how many it shows.

    Raises StorageError where nothing is published at `output_uri`.
    """
    published = Published(output_uri)
    output, manifest = published.store, published.manifest
    rows = _rows_to_show(published, most)
    corpus = open_store(input_uri or manifest["input"])
    limits = Limits(manifest["config"]["corpus"]["max_pixels"], 1)
    cards = "\n".join(_card(row, corpus, output, limits) for row in rows.to_pylist())
    values = {"headline": _headline(manifest), "cards": cards, "removed": _removed_table(manifest)}
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(Template(_PAGE.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
    return len(rows)


def _rows_to_show(published: Published, most: int) -> pa.Table:
    """Cleaned images first, then the others; files are read until there are enough."""
    cleaned, others = [], []
    for rows in published.tables():
        is_cleaned = pc.is_in(rows.column("status"), pa.array([Status.CLEANED, Status.SCANNED]))
        cleaned.append(rows.filter(is_cleaned).slice(0, most))
        others.append(rows.filter(pc.invert(is_cleaned)).slice(0, most))
        if sum(map(len, cleaned)) >= most:
            break
    return pa.concat_tables([*cleaned, *others]).slice(0, most)


def _card(row: dict[str, Any], corpus: Store, output: Store, limits: Limits) -> str:
    figures = "".join(_figures(row, corpus, output, limits))
    reasons = "".join(f"<li>{_reason(item)}</li>" for item in _objects(row))
    if not reasons and row["status"] in (Status.CLEANED, Status.UNCHANGED):
        reasons = f"<li>no thing was seen; stuff: {_stuff(row)}</li>"
    error = f"<p>{_text(row['reason'])}: {_text((row['error'] or {}).get('message'))}</p>" if row["reason"] else ""
    status = _text(row["status"])
    return (
        f'<article class="{status}"><h2>{_text(row["uri"])} <span class="status">{status}</span></h2>'
        f'<div class="pictures">{figures}</div>{error}<ul>{reasons}</ul></article>'
    )


def _figures(row: dict[str, Any], corpus: Store, output: Store, limits: Limits) -> Iterator[str]:
    if row["status"] not in (Status.CLEANED, Status.SCANNED, Status.UNCHANGED):
        return
    try:
        before = decode(corpus.read(row["uri"]), limits)
        if row["status"] == Status.UNCHANGED:
            yield _figure("kept as it was", before)
            return
        if before.shape[:2] != (row["height"], row["width"]):
            raise FileNotFoundError("the photo was replaced by another one")
        mask = rle_decode(Rle(row["height"], row["width"], row["mask"].encode("ascii")))
        yield _figure("before", before)
        yield _figure("removed", overlay(before, mask, _RED, 0.6))
        if row["status"] == Status.CLEANED:
            yield _figure("after", decode(output.read(row["output"]), limits))
    except (OSError, ImageError) as error:
        yield f"<p>no picture: {_text(error)}</p>"


def _figure(caption: str, rgb: Any) -> str:
    picture = Pil.fromarray(rgb)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=85)
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return (
        f'<figure><img loading="lazy" alt="{caption}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _objects(row: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(row["objects"] or (), key=lambda item: item["verdict"] != Verdict.REMOVE)


def _reason(item: dict[str, Any]) -> str:
    relation = "" if item["relation"] is None else f", relation {item['relation']:.2f}"
    evidence = item["evidence"] or ()
    why = ""
    if evidence:
        near, far = evidence[0], evidence[-1]
        why = (
            f" &mdash; nearest {_text(near['context'])} ({near['relation']:.2f}), "
            f"farthest {_text(far['context'])} ({far['relation']:.2f})"
        )
    verdict = _text(item["verdict"])
    return f'<b class="{verdict}">{verdict}</b> {_text(item["label"])}: {_text(item["reason"])}{relation}{why}'


def _stuff(row: dict[str, Any]) -> str:
    ranked = sorted(row["stuff"] or (), key=lambda item: -item["confidence"])[:6]
    return ", ".join(f"{_text(item['label'])} ({item['confidence']:.2f})" for item in ranked) or "none"


def _headline(manifest: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {_text(status)}" for status, count in manifest["status"].items() if count)
    return f"{manifest['images']} images: {counts or 'none'}"


def _removed_table(manifest: dict[str, Any]) -> str:
    ranked = sorted(manifest["removed"].items(), key=lambda pair: -pair[1])
    return ", ".join(f"{_text(label)} &times; {count}" for label, count in ranked) or "nothing"


def _text(value: object) -> str:
    return html.escape("" if value is None else str(value))
