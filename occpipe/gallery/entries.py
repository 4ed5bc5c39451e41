"""From a published row to what a page shows of it: JSON values of bounded size, with pictures and outlines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from occpipe.drawing import colour_of
from occpipe.gallery.pictures import outline, thumbnails, view_of
from occpipe.images import ImageError, Limits, decode
from occpipe.masks import Rle, rle_decode
from occpipe.storage import Store
from occpipe.storage.base import is_safe_key
from occpipe.types import Image, Status, Verdict

_DECODED = 1280
"""Long side in pixels to which a photo is decoded for its thumbnail."""
_MOST_CONTEXTS = 12
_MOST_STUFF = 10
_LONGEST = 400


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
        """The photo, and the result of a cleaned one, RGB H x W x 3; OSError or ImageError where one cannot be had."""
        yield self._decode(self.corpus, row["uri"], row)
        if row["status"] == Status.CLEANED:
            yield self._decode(self.output, row["output"], row)

    def _decode(self, store: Store, key: str, row: Mapping[str, Any]) -> Image:
        if not is_safe_key(key or ""):
            raise FileNotFoundError("its name leads out of the folder")
        rgb = decode(store.read(key, self.most_bytes), self.limits, max_side=_DECODED)
        if abs(rgb.shape[1] / rgb.shape[0] - row["width"] / row["height"]) > 2 / min(rgb.shape[:2]):
            raise FileNotFoundError("the photo was replaced by another one")
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
    result, or raises OSError or ImageError.
    """
    found: dict[str, Any] = {
        "id": str(row["image_id"]),  # a string: 64 bits are more than a number of JavaScript holds
        "uri": row["uri"][:1024],
        "status": row["status"],
        "reason": row["reason"],
        "error": _short((row["error"] or {}).get("message")),
        "shows": [_short(what) for what in shows],
        "size": [row["width"], row["height"]],
        "view": None,
        "removed": _number(row["removed"]),
        "mask": "",
        "stuff": [
            [_short(s["label"]), _number(s["confidence"])]
            for s in sorted(row["stuff"] or (), key=lambda s: -s["confidence"])[:_MOST_STUFF]
        ],
        "before": None,
        "after": None,
        "note": None,
        "more": 0,
        "objects": [],
    }
    if row["width"] and row["height"]:
        found["view"] = view_of(row["height"], row["width"])
        found["mask"] = _outline(row["mask"], row)
        found["objects"] = [
            object_entry(number, item, row, shares.get(item["label"], {}))
            for number, item in sorted(
                enumerate(row["objects"] or ()), key=lambda pair: (pair[1]["verdict"] != Verdict.REMOVE, pair[0])
            )
        ]
    _fit(found, room.text)
    if found["view"]:
        try:
            drawn = thumbnails(list(draw(row)), room.picture)
            found |= dict(zip(("before", "after"), drawn, strict=False))
            found["note"] = None if drawn else "no room for its picture in this page"
        except (OSError, ImageError) as error:
            found["note"] = _short(
                f"no picture: {getattr(error, 'strerror', None) or error}"
            )  # no path of this machine
    return found


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
        "label": _short(item["label"]),
        "score": _number(item["score"]),
        "area": _number(item["area"] / (row["width"] * row["height"])),
        "box": None if box is None else [box["x"] / row["width"], box["y"] / row["height"]],
        "relation": _number(item["relation"]),
        "verdict": item["verdict"],
        "reason": item["reason"],
        "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(item["label"])),
        "outline": _outline(item["mask"], row),
        "why": [[_short(context), _number(alone), _number(share)] for context, alone, share in ranked],
    }


def _fit(found: dict[str, Any], most: int) -> None:
    """Leave out the last things where an entry takes more than `most` bytes, and its mask where even none is too much."""
    objects = found["objects"]
    room, kept = most - len(json.dumps(found | {"objects": []})), 0
    if room < 0:
        found |= {"mask": "", "stuff": []}
    for item in objects:
        room -= len(json.dumps(item)) + 2
        if room < 0:
            break
        kept += 1
    found["more"] = len(objects) - kept
    del objects[kept:]


def _outline(counts: str | None, row: Mapping[str, Any]) -> str:
    if not counts:
        return ""
    mask = rle_decode(Rle(row["height"], row["width"], counts.encode("ascii")))
    return outline(np.minimum(mask, 1))


def _short(text: str | None) -> str | None:
    return None if text is None else text[:_LONGEST]


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
