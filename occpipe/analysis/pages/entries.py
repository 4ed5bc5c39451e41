"""From a published row to what a page shows of it: JSON values of bounded size, with pictures and outlines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from occpipe.analysis.pages.drawing import colour_of
from occpipe.analysis.pages.page import escaped
from occpipe.analysis.pages.pictures import outline, thumbnails, view_of
from occpipe.core.masks import Rle, rle_decode
from occpipe.core.types import Image, Status, Verdict
from occpipe.io.images import ImageError, Limits, decode
from occpipe.io.storage import Store, TooLargeError, is_safe_key

_DECODED = 1280
"""Long side in pixels to which a photo is decoded for its thumbnail."""
_MOST_CONTEXTS = 12
_MOST_STUFF = 10
_LONGEST = 400
_UNREAD: tuple[tuple[type[OSError], str], ...] = (
    (FileNotFoundError, "its file is not there"),
    (PermissionError, "its file may not be read"),
    (TooLargeError, "its file is too large"),
    (OSError, "its file cannot be read now"),
)
"""What a page says of errors of storage: their own words may name machines and addresses, and pages are passed on."""


class NoPictureError(Exception):
    """Why a row has no picture, in words for a page."""


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that an entry may take in a page: of all but its pictures, and of each picture."""

    text: int
    picture: int


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where photos and results lie, and what is read and decoded of them at most."""

    corpus: Store
    output: Store
    limits: Limits
    most_bytes: int

    def before_and_after(self, row: Mapping[str, Any]) -> Iterator[Image]:
        """The photo, and the result of a cleaned one, RGB H x W x 3; NoPictureError where one cannot be had."""
        yield self._decode(self.corpus, row["uri"], row)
        if row["status"] == Status.CLEANED:
            yield self._decode(self.output, row["output"], row)

    def _decode(self, store: Store, key: str, row: Mapping[str, Any]) -> Image:
        if not is_safe_key(key or ""):
            raise NoPictureError("its name leads out of the folder")
        try:
            rgb = decode(store.read(key, self.most_bytes), self.limits, max_side=_DECODED)
        except OSError as error:
            raise NoPictureError(next(text for kind, text in _UNREAD if isinstance(error, kind))) from error
        except ImageError as error:
            raise NoPictureError(str(error)) from error
        if abs(rgb.shape[1] / rgb.shape[0] - row["width"] / row["height"]) > 2 / min(rgb.shape[:2]):
            raise NoPictureError("the photo was replaced by another one")
        return rgb


def entry(
    row: Mapping[str, Any],
    shows: list[str],
    shares: Mapping[str, Mapping[str, float]],
    draw: Callable[[Mapping[str, Any]], Iterable[Image]],
    room: Room,
) -> dict[str, Any]:
    """What a page shows of a row.

    `shows` says what it is an example of, `shares` what its context adds (see `Why.shares`); `draw` gives its photo and its
    result, or raises NoPictureError. Its name is its `uri`, or its `id` where the uri was too long and is `cut`.
    """
    found: dict[str, Any] = {
        "id": str(row["image_id"]),  # a string: 64 bits are more than a number of JavaScript holds
        "uri": row["uri"],
        "cut": False,
        "status": short(row["status"]),
        "reason": short(row["reason"]),
        "error": short((row["error"] or {}).get("message")),
        "shows": [short(what) for what in shows],
        "size": [row["width"], row["height"]],
        "view": None,
        "removed": _number(row["removed"]),
        "mask": "",
        "stuff": [
            [short(s["label"]), _number(s["confidence"])]
            for s in sorted(row["stuff"] or (), key=lambda s: -s["confidence"])[:_MOST_STUFF]
        ],
        "before": None,
        "after": None,
        "note": None,
        "more": 0,
        "objects": [],
    }
    drawn: list[str] = []
    if row["width"] and row["height"]:
        found["view"] = view_of(row["height"], row["width"])
        found["mask"] = _outline(row["mask"], row)
        found["objects"] = [
            object_entry(number, item, row, shares.get(item["label"], {}))
            for number, item in sorted(
                enumerate(row["objects"] or ()), key=lambda pair: (pair[1]["verdict"] != Verdict.REMOVE, pair[0])
            )
        ]
        try:
            drawn = thumbnails(list(draw(row)), room.picture)
            found["note"] = None if drawn else "no room for its picture in this page"
        except NoPictureError as error:
            drawn, found["note"] = [], short(f"no picture: {error}")
    _fit(found, room.text)
    return found | dict(zip(("before", "after"), drawn, strict=False))


def object_entry(
    number: int, item: Mapping[str, Any], row: Mapping[str, Any], shares: Mapping[str, float]
) -> dict[str, Any]:
    """What a page shows of a thing, the `number`-th of its row; `shares` as by `Why.shares`."""
    evidence = list(item["evidence"] or ())
    ranked = [(e["context"], e["relation"], shares.get(e["context"])) for e in evidence]
    if len(ranked) > _MOST_CONTEXTS:  # the nearest ones and the farthest ones
        half = _MOST_CONTEXTS // 2
        ranked = ranked[:half] + ranked[-half:]
    box = item["bbox"]
    return {
        "index": number,
        "label": short(item["label"]),
        "score": _number(item["score"]),
        "area": _number(item["area"] / (row["width"] * row["height"])),
        "box": None if box is None else [box["x"] / row["width"], box["y"] / row["height"]],
        "relation": _number(item["relation"]),
        "verdict": item["verdict"],
        "reason": short(item["reason"]),
        "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(item["label"])),
        "outline": _outline(item["mask"], row),
        "why": [[short(context), _number(alone), _number(share)] for context, alone, share in ranked],
    }


def _fit(found: dict[str, Any], most: int) -> None:
    """Leave out the last things of an entry without pictures that takes more than `most` bytes of a page.

    Where even none is too much its mask goes, too, and its texts are cut to an eighth of the bytes each.
    """
    objects, found["objects"] = found["objects"], []
    if len(escaped(found)) > most:
        uri = found["uri"]
        found |= {"mask": "", "stuff": [], "shows": [_cut(what, most // 8) for what in found["shows"][:1]]}
        found |= {key: _cut(found[key], most // 8) for key in ("uri", "status", "reason", "error", "note")}
        found["cut"] = found["uri"] != uri
    room, kept = most - len(escaped(found)), 0
    for item in objects:
        room -= len(escaped(item)) + 1
        if room < 0:
            break
        kept += 1
    found |= {"more": len(objects) - kept, "objects": objects[:kept]}


def _cut(text: str | None, most: int) -> str | None:
    """The beginning of a text that takes at most `most` bytes of a page."""
    while text and len(escaped(text)) > most:
        text = text[: len(text) * 7 // 8]
    return text


def _outline(counts: str | None, row: Mapping[str, Any]) -> str:
    if not counts or not row["mask_width"] or not row["mask_height"]:
        return ""
    mask = rle_decode(Rle(row["mask_height"], row["mask_width"], counts.encode("ascii")))
    return outline(np.minimum(mask, 1), view_of(row["height"], row["width"]))


def short(text: str | None) -> str | None:
    """A text from strangers, a name for one, at the length at which a page shows it."""
    return None if text is None else text[:_LONGEST]


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
