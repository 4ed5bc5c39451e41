"""The dry run of `apply`, from the rows alone: no image is read, nothing is written, no Ray is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import pyarrow as pa

from occpipe.core.config import Config
from occpipe.core.rows import ObjectRow, Row
from occpipe.core.schemas import PUBLISHED
from occpipe.core.types import Status
from occpipe.dataset.reader import Published
from occpipe.dataset.verdicts import Review
from occpipe.models.relations.observations import judgements, unmatched
from occpipe.stages.load_detections import LoadDetections
from occpipe.stages.relate import Relate

_BATCH = 64
_SHOWN = ["image_id", "uri", "status", "objects", "mask"]


class Decision(TypedDict):
    """The verdict of a thing, its reason and its relation."""

    verdict: str
    reason: str
    relation: float | None


class Change(Decision):
    """A thing by its place among the objects, with its verdict `was` and the new one."""

    object: int
    label: str
    was: Decision


class ImageChange(TypedDict):
    """An image that would change, with its status after that."""

    image_id: int
    uri: str
    status: str
    things: list[Change]


class ThingTotals(TypedDict):
    """Things of a class that change sides, with the reason before, the new verdict and its reason."""

    label: str
    was: str
    verdict: str
    reason: str
    things: int


class ForecastTotals(TypedDict):
    """A forecast as JSON values; see `Forecast`."""

    status: dict[str, int]
    changed: int
    things: list[ThingTotals]
    missed: list[str]


@dataclass(slots=True)
class Forecast:
    """What would change: images by status after it, those that are `changed`, and the things that change sides.

    `things` are counted by label, reason before, verdict and reason after; `missed` verdicts match none, where all
    images were looked at.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    things: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    def as_json(self) -> ForecastTotals:
        """The forecast as JSON values."""
        things = [
            ThingTotals(label=label, was=was, verdict=verdict, reason=reason, things=count)
            for (label, was, verdict, reason), count in self.things.most_common()
        ]
        status = {str(status): self.statuses[status] for status in Status if status is not Status.SCANNED}
        return {"status": status, "changed": self.changed, "things": things, "missed": self.missed}


def forecast(
    scan: Published, config: Config, review: Review | None, into: Forecast, limit: int | None = None
) -> Iterator[ImageChange]:
    """The images that would change, each with its things that do; fills `into` on the way.

    Streams the rows of a scan or a clean, some milliseconds an image. An error that would first show when the photo is read
    is not foreseen.
    """
    load = LoadDetections(config.corpus.max_pixels)
    relate = Relate(config, (lambda: review.verdicts) if review else dict)
    matched: set[tuple[str, str]] = set()
    for rows in _batches(scan, limit):
        before: list[Row] = rows.select(_SHOWN).to_pylist()
        after: list[Row] = relate(load(rows)).select(_SHOWN).to_pylist()
        for old, new in zip(before, after, strict=True):
            status = new["status"] or Status.CLEANED
            into.statuses[status] += 1
            if review:
                labels = [item["label"] for item in new["objects"] or ()]
                judgements(new["uri"], new["image_id"], labels, review.verdicts, matched)
            things = list(_changes(old["objects"] or (), new["objects"] or ()))
            # the mask shows protection, too; that of a clean has grown by shadows, and they need the photo
            if things or (old["mask"] != new["mask"] and not config.inpainter.shadow):
                into.changed += 1
                into.things.update((t["label"], t["was"]["reason"], t["verdict"], t["reason"]) for t in things)
                yield {"image_id": new["image_id"], "uri": new["uri"], "status": status, "things": things}
    into.missed = unmatched(review.verdicts, matched) if review and limit is None else []


def _batches(scan: Published, limit: int | None) -> Iterator[pa.Table]:
    left = limit
    for rows in scan.batches(PUBLISHED.names, _BATCH):
        yield rows.slice(0, left)
        left = None if left is None else left - len(rows)
        if left is not None and left <= 0:
            return


def _changes(before: Sequence[ObjectRow], after: Sequence[ObjectRow]) -> Iterator[Change]:
    """The things whose verdict is another one; where relate failed, there are none."""
    for place, (old, new) in enumerate(zip(before, after, strict=False)):
        if old["verdict"] != new["verdict"]:
            yield {"object": place, "label": new["label"], "was": _decision(old), **_decision(new)}


def _decision(item: ObjectRow) -> Decision:
    return {"verdict": item["verdict"], "reason": item["reason"], "relation": item["relation"]}
