"""The entries of a page, one a published row: JSON values of bounded size, with pictures and outlines."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from occpipe.analysis.pages.drawing import colour_of
from occpipe.analysis.pages.page import escaped
from occpipe.analysis.pages.pictures import outline, thumbnails, view_of
from occpipe.analysis.pages.types import PageEntry, PageThing
from occpipe.core.masks import Rle, rle_decode
from occpipe.core.rows import ObjectRow, Row
from occpipe.core.types import Image, Status, Verdict
from occpipe.dataset.containers_commit import read_output
from occpipe.io.containers import place_of, read_member, split_uri
from occpipe.io.images import ImageError, Limits, decode
from occpipe.io.storage import Store, TooLargeError, is_safe_key

logger = logging.getLogger(__name__)

_DECODED = 1280
"""Long side in pixels to which a photo is decoded for its thumbnail."""
_MAX_CONTEXTS = 12
_MAX_STUFF = 10
_MAX_CHARACTERS = 400
_MAX_CLASSES = 3
_UNREAD: tuple[tuple[type[OSError], str], ...] = (
    (FileNotFoundError, "its file is not there"),
    (PermissionError, "its file may not be read"),
    (TooLargeError, "its file is too large"),
    (OSError, "its file cannot be read now"),
)
"""The texts for errors of storage. Their own messages may name machines and addresses, and pages are passed on."""


class NoPictureError(Exception):
    """The reason why a row has no picture, as a text for a page."""


@dataclass(frozen=True, slots=True)
class ByteLimits:
    """Bytes that an entry may take in a page: its text, and each of its pictures."""

    text: int
    picture: int


@dataclass(frozen=True, slots=True)
class Pictures:
    """The stores of photos and results, and the limits of what is read and decoded."""

    corpus: Store
    output: Store
    limits: Limits
    max_bytes: int

    def before_and_after(self, row: Row) -> Iterator[Image]:
        """The photo, and the result of a cleaned one, RGB H x W x 3; NoPictureError where one cannot be read."""
        uri, place = row["uri"], place_of(row.get("etag"))

        def read() -> bytes:
            if place is None:
                return self.corpus.read(uri, self.max_bytes)
            return read_member(self.corpus, uri, row["size"], place, self.max_bytes)

        yield self._decode(split_uri(uri)[0] if place else uri, read, row)
        if row["status"] == Status.CLEANED:
            yield self._decode(row["output"] or "", lambda: read_output(self.output, row, self.max_bytes), row)

    def _decode(self, key: str, read: Callable[[], bytes], row: Row) -> Image:
        if not is_safe_key(key):
            raise NoPictureError("its name leads out of the folder")
        try:
            rgb = decode(read(), self.limits, max_side=_DECODED)
        except OSError as error:
            logger.info("%s: no picture for a page", key, exc_info=error)
            raise NoPictureError(next(text for kind, text in _UNREAD if isinstance(error, kind))) from error
        except ImageError as error:
            raise NoPictureError(str(error)) from error
        if abs(rgb.shape[1] / rgb.shape[0] - row["width"] / row["height"]) > 2 / min(rgb.shape[:2]):
            raise NoPictureError("the photo was replaced by another one")
        return rgb


def page_entry(
    row: Row,
    shows: list[str],
    shares: Mapping[str, Mapping[str, float]],
    draw: Callable[[Row], Iterable[Image]],
    limits: ByteLimits,
) -> PageEntry:
    """The entry of a row.

    `shows` names what the row is an example of, and `shares` are those of `Why.shares`. `draw` returns the photo and its
    result, or raises NoPictureError.
    """
    entry: PageEntry = {
        "id": str(row["image_id"]),  # a string: 64 bits are more than a number of JavaScript holds
        "uri": row["uri"],
        "cut": False,
        "status": _short(row["status"]),
        "reason": _short(row["reason"]),
        "error": _short(row["error"]["message"] if row["error"] else None),
        "shows": [shortened(what) for what in shows],
        "size": (row["width"], row["height"]),
        "view": None,
        "removed": _number(row["removed"]),
        "mask": "",
        "stuff": [
            (shortened(s["label"]), _number(s["confidence"]))
            for s in sorted(row["stuff"] or (), key=lambda s: -s["confidence"])[:_MAX_STUFF]
        ],
        "before": None,
        "after": None,
        "note": None,
        "more": 0,
        "objects": [],
    }
    pictures: list[str] = []
    if row["width"] and row["height"]:
        entry["view"] = view_of(row["height"], row["width"])
        entry["mask"] = _outline(row["mask"], row)
        entry["objects"] = [
            _thing(number, item, row, shares.get(item["label"], {}))
            for number, item in sorted(
                enumerate(row["objects"] or ()), key=lambda pair: (pair[1]["verdict"] != Verdict.REMOVE, pair[0])
            )
        ]
        try:
            pictures = thumbnails(list(draw(row)), limits.picture)
            entry["note"] = None if pictures else "no room for its picture in this page"
        except NoPictureError as error:
            pictures, entry["note"] = [], shortened(f"no picture: {error}")
    _fit(entry, limits.text)
    entry["before"], entry["after"] = (*pictures, None, None)[:2]
    return entry


def _thing(number: int, item: ObjectRow, row: Row, shares: Mapping[str, float]) -> PageThing:
    """A thing, the `number`-th of its row; `shares` as by `Why.shares`."""
    evidence = list(item["evidence"] or ())
    ranked = [(e["context"], e["relation"], shares.get(e["context"])) for e in evidence]
    if len(ranked) > _MAX_CONTEXTS:  # the nearest ones and the farthest ones
        half = _MAX_CONTEXTS // 2
        ranked = ranked[:half] + ranked[-half:]
    box = item["bbox"]
    return {
        "index": number,
        "label": shortened(item["label"]),
        "score": _number(item["score"]),
        "classes": [(shortened(c["label"]), c["probability"]) for c in (item.get("classes") or ())[:_MAX_CLASSES]],
        "area": _number(item["area"] / (row["width"] * row["height"])),
        "box": None if box is None else (box["x"] / row["width"], box["y"] / row["height"]),
        "relation": _number(item["relation"]),
        "verdict": item["verdict"],
        "reason": _short(item["reason"]),
        "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(item["label"])),
        "outline": _outline(item["mask"], row),
        "why": [(shortened(context), _number(alone), _number(share)) for context, alone, share in ranked],
    }


def _fit(entry: PageEntry, max_bytes: int) -> None:
    """Leave out the last things of an entry, still without pictures, that takes more than `max_bytes` of a page.

    Where it is too large without any thing, its mask goes, too, and its texts are cut to an eighth of the bytes each.
    """
    objects, entry["objects"] = entry["objects"], []
    if len(escaped(entry)) > max_bytes:
        uri, most = entry["uri"], max_bytes // 8
        entry |= {"mask": "", "stuff": [], "shows": [_cut(what, most) for what in entry["shows"][:1]]}
        entry |= {"uri": _cut(uri, most), "status": _cut(entry["status"], most), "reason": _cut(entry["reason"], most)}
        entry |= {"error": _cut(entry["error"], most), "note": _cut(entry["note"], most)}
        entry["cut"] = entry["uri"] != uri
    rest, count = max_bytes - len(escaped(entry)), 0
    for item in objects:
        rest -= len(escaped(item)) + 1
        if rest < 0:
            break
        count += 1
    entry |= {"more": len(objects) - count, "objects": objects[:count]}


Text = TypeVar("Text", str, str | None)


def _cut(text: Text, max_bytes: int) -> Text:
    """The beginning of a text that takes at most `max_bytes` of a page."""
    while text and len(escaped(text)) > max_bytes:
        text = text[: len(text) * 7 // 8]
    return text


def _outline(counts: str | None, row: Row) -> str:
    if not counts or not row["mask_width"] or not row["mask_height"]:
        return ""
    mask = rle_decode(Rle(row["mask_height"], row["mask_width"], counts.encode("ascii")))
    return outline(np.minimum(mask, 1), view_of(row["height"], row["width"]))


def shortened(text: str) -> str:
    """A text that may come from strangers, at the length at which a page shows it."""
    return text[:_MAX_CHARACTERS]


def _short(text: str | None) -> str | None:
    return None if text is None else shortened(text)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
