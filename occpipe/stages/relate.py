"""relate: verdict, reason, score and evidence for each thing, and the mask to fill; 1:1, on CPUs, milliseconds an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from occpipe.config import Config
from occpipe.decide import decide, overrule, removal_mask
from occpipe.masks import Rle
from occpipe.models import load_relations
from occpipe.observations import Verdicts, judgements
from occpipe.rows import Rows
from occpipe.stages.segment import segment_row
from occpipe.types import Box, SceneObject, Segment, Segmentation, Status

_scorer = cache(load_relations)


def to_scene(height: int, width: int, segments: list[dict[str, Any]], stuff: list[dict[str, Any]]) -> Segmentation:
    """A scene from the values of its Arrow columns."""
    return Segmentation(
        height,
        width,
        tuple(
            Segment(
                s["label"],
                s["is_thing"],
                s["score"],
                s["area"],
                Box(**s["bbox"]),
                Rle(height, width, s["mask"].encode("ascii")),
            )
            for s in segments
        ),
        {s["label"]: s["confidence"] for s in stuff},
    )


def object_row(item: SceneObject) -> dict[str, Any]:
    """A thing with its verdict as a struct of the `objects` column."""
    row = segment_row(item.segment)
    del row["is_thing"]
    evidence = [{"context": e.context, "relation": e.relation} for e in item.evidence]
    return row | {
        "relation": item.relation,
        "verdict": item.verdict,
        "reason": item.reason,
        "evidence": evidence,
    }


@dataclass(frozen=True)
class Relate:
    """Turns `segments` into `objects` with verdicts, and adds the removal `mask`; no removal ends as unchanged.

    What people say beats what the policy does; the digest of the rows is then `digest`, for the config does not say it all.
    """

    config: Config
    verdicts: Callable[[], Verdicts] | None = None
    digest: str | None = None

    READS = ("image_id", "uri", "height", "width", "segments", "stuff", "status", "reason", "error")
    WRITES = ("objects", "mask", "removed", "config", "status", "reason", "error")
    DROPS = ("segments",)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "relate")
        objects, masks, removed = rows.nulls(), rows.nulls(), rows.nulls()
        for index in rows.open():
            with rows.attempt(index):
                scene = to_scene(*(rows.value(name, index) for name in ("height", "width", "segments", "stuff")))
                things = decide(scene, _scorer(self.config.relations), self.config.policy)
                if self.verdicts is not None:
                    image = rows.value("uri", index), rows.value("image_id", index)
                    things = overrule(things, judgements(*image, [t.label for t in things], self.verdicts()))
                objects[index] = [object_row(item) for item in things]
                mask = removal_mask(things, self.config.policy, self.config.inpainter)
                removed[index] = 0.0
                if mask is None:
                    rows.finish(index, Status.UNCHANGED)
                else:
                    masks[index] = Rle.encode(mask).counts.decode("ascii")
                    removed[index] = float(np.mean(mask))
        digest = [self.digest or self.config.digest] * len(batch)
        return rows.table(self.DROPS, objects=objects, mask=masks, removed=removed, config=digest)
