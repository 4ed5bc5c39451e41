"""relate: verdict, reason, score and evidence for each thing, and the mask to fill; 1:1, on CPUs, milliseconds an image.

Everything is decided at the size of the masks. Only areas and boxes of `objects` are in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from occpipe.core.config import Config
from occpipe.core.masks import Rle
from occpipe.core.types import SceneObject, Segment, Segmentation, Status
from occpipe.models.loading import load_relations
from occpipe.models.relations.decide import decide, overrule, removal_mask
from occpipe.models.relations.observations import Verdicts, judgements
from occpipe.stages.rows import Rows
from occpipe.stages.segment import segment_row

_scorer = cache(load_relations)


def to_scene(height: int, width: int, segments: list[dict[str, Any]], stuff: list[dict[str, Any]]) -> Segmentation:
    """A scene from the values of its Arrow columns, at the size of its masks."""
    things = (
        Segment.from_rle(s["label"], True, s["score"], Rle(height, width, s["mask"].encode("ascii"))) for s in segments
    )
    return Segmentation(height, width, tuple(things), {s["label"]: s["confidence"] for s in stuff})


def object_row(item: SceneObject, height: int, width: int) -> dict[str, Any]:
    """A thing with its verdict as a struct of the `objects` column; area and box in an image of `height` x `width`."""
    segment = item.segment
    area, box = segment.at(height, width)
    evidence = [{"context": e.context, "relation": e.relation} for e in item.evidence]
    return segment_row(segment) | {
        "area": area,
        "bbox": box._asdict(),
        "relation": item.relation,
        "verdict": item.verdict,
        "reason": item.reason,
        "evidence": evidence,
    }


@dataclass(frozen=True)
class Relate:
    """Turns `segments` into `objects` with verdicts, and adds the removal `mask`; no removal ends as unchanged.

    What people say beats what the policy does; the digest of the rows is then `digest`, because the config does not say
    it all.
    """

    config: Config
    verdicts: Callable[[], Verdicts] | None = None
    digest: str | None = None

    READS = (
        *("image_id", "uri", "width", "height", "mask_width", "mask_height", "segments", "stuff"),
        *("status", "reason", "error"),
    )
    WRITES = ("objects", "mask", "removed", "config", "status", "reason", "error")
    DROPS = ("segments",)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "relate")
        objects, masks, removed = rows.nulls(), rows.nulls(), rows.nulls()
        for index in rows.open():
            with rows.attempt(index):
                scene = to_scene(
                    *(rows.value(name, index) for name in ("mask_height", "mask_width", "segments", "stuff"))
                )
                things = decide(scene, _scorer(self.config.relations), self.config.policy)
                if self.verdicts is not None:
                    image = rows.value("uri", index), rows.value("image_id", index)
                    things = overrule(things, judgements(*image, [t.label for t in things], self.verdicts()))
                size = rows.value("height", index), rows.value("width", index)
                objects[index] = [object_row(item, *size) for item in things]
                mask = removal_mask(things, self.config.policy, self.config.inpainter)
                removed[index] = 0.0
                if mask is None:
                    rows.finish(index, Status.UNCHANGED)
                else:
                    masks[index] = Rle.encode(mask).counts.decode("ascii")
                    removed[index] = float(np.mean(mask))
        digest = [self.digest or self.config.digest] * len(batch)
        return rows.table(self.DROPS, objects=objects, mask=masks, removed=removed, config=digest)
