"""What `apply` would change, from the rows alone: no image is read, nothing is written, no Ray is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from occpipe.core.config import Config
from occpipe.core.schemas import PUBLISHED
from occpipe.core.types import Status
from occpipe.dataset.reader import Published
from occpipe.dataset.verdicts import Review
from occpipe.models.relations.observations import judgements, unmatched
from occpipe.stages.load_detections import LoadDetections
from occpipe.stages.relate import Relate

_BATCH = 64
_SHOWN = ["image_id", "uri", "status", "objects", "mask"]


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

    def as_json(self) -> dict[str, Any]:
        """The forecast as JSON values."""
        names = ("label", "was", "verdict", "reason")
        things = [dict(zip(names, key, strict=True)) | {"things": n} for key, n in self.things.most_common()]
        status = {status: self.statuses[status] for status in Status if status is not Status.SCANNED}
        return {"status": status, "changed": self.changed, "things": things, "missed": self.missed}


def forecast(
    scan: Published, config: Config, review: Review | None, into: Forecast, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """The images that would change, each with its things that do, as JSON values; fills `into` on the way.

    Streams the rows of a scan or a clean, some milliseconds an image. An error that would first show when the photo is read
    is not foreseen.
    """
    load = LoadDetections(config.corpus.max_pixels)
    relate = Relate(config, (lambda: review.verdicts) if review else None)
    matched: set[tuple[str, str]] = set()
    for rows in _batches(scan, limit):
        before, after = (table.select(_SHOWN).to_pylist() for table in (rows, relate(load(rows))))
        for old, new in zip(before, after, strict=True):
            into.statuses[new["status"] or Status.CLEANED] += 1
            if review:
                judgements(new["uri"], new["image_id"], _labels(new), review.verdicts, matched)
            things = list(_changes(old["objects"] or (), new["objects"] or ()))
            # the mask also tells what is protected now; that of a clean has grown by shadows, which only the photo shows
            if things or (old["mask"] != new["mask"] and not config.inpainter.shadow):
                into.changed += 1
                into.things.update((t["label"], t["was"]["reason"], t["verdict"], t["reason"]) for t in things)
                image = {"image_id": new["image_id"], "uri": new["uri"], "status": new["status"] or Status.CLEANED}
                yield image | {"things": things}
    into.missed = unmatched(review.verdicts, matched) if review and limit is None else []


def _batches(scan: Published, limit: int | None) -> Iterator[pa.Table]:
    left = limit
    for rows in scan.batches(PUBLISHED.names, _BATCH):
        yield rows.slice(0, left)
        left = None if left is None else left - len(rows)
        if left is not None and left <= 0:
            return


def _changes(before: Any, after: Any) -> Iterator[dict[str, Any]]:
    """The things whose verdict is another one; where relate failed, there are none."""
    for place, (old, new) in enumerate(zip(before, after, strict=False)):
        if old["verdict"] != new["verdict"]:
            was, now = ({name: item[name] for name in ("verdict", "reason", "relation")} for item in (old, new))
            yield {"object": place, "label": new["label"], "was": was, **now}


def _labels(row: dict[str, Any]) -> list[str]:
    return [item["label"] for item in row["objects"] or ()]
