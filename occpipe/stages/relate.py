"""relate: verdict, reason, score and evidence for each thing, and the mask to fill; 1:1, on CPUs, milliseconds an image.

Everything is decided at the size of the masks. Only areas and boxes of `objects` are in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
import pyarrow as pa

from occpipe.core.config import Config
from occpipe.core.masks import Rle
from occpipe.core.rows import EvidenceRow, ObjectRow, SegmentRow, StuffRow
from occpipe.core.types import ClassShare, SceneObject, Segment, Segmentation, Status
from occpipe.models.loading import load_relations
from occpipe.models.relations.decide import decide, overrule, removal_mask, rule_of
from occpipe.models.relations.observations import Verdicts, judgements
from occpipe.stages.rows import Rows
from occpipe.stages.segment import segment_row
from occpipe.stages.stage import Setup, Stage

_scorer = cache(load_relations)


def to_scene(height: int, width: int, segments: list[SegmentRow], stuff: list[StuffRow]) -> Segmentation:
    """A scene from the values of its Arrow columns, at the size of its masks."""
    things = tuple(_thing(s, Rle(height, width, s["mask"].encode("ascii"))) for s in segments)
    return Segmentation(height, width, things, {s["label"]: s["confidence"] for s in stuff})


def _thing(segment: SegmentRow, rle: Rle) -> Segment:
    """A thing of a row; rows of earlier versions have one class for each."""
    classes = [ClassShare(share["label"], share["probability"]) for share in segment["classes"] or ()]
    return Segment.from_rle(segment["label"], True, segment["score"], rle, classes, segment["thing"] or 0.0)


def object_row(item: SceneObject, height: int, width: int) -> ObjectRow:
    """A thing with its verdict as a struct of the `objects` column; area and box in an image of `height` x `width`."""
    segment = item.segment
    area, box = segment.at(height, width)
    evidence: list[EvidenceRow] = [{"context": e.context, "relation": e.relation} for e in item.evidence]
    return {
        **segment_row(segment),
        "area": area,
        "bbox": {"x": box.x, "y": box.y, "width": box.width, "height": box.height},
        "relation": item.relation,
        "verdict": item.verdict,
        "reason": item.reason,
        "evidence": evidence,
    }


@dataclass(frozen=True)
class Relate(Stage):
    """Turns `segments` into `objects` with verdicts, and adds the removal `mask`; no removal ends as unchanged.

    The verdicts of people overrule the policy. `digest` stands in each row, in place of the config's.
    """

    config: Config
    verdicts: Callable[[], Verdicts] = dict
    digest: str = ""

    READS = (
        *("image_id", "uri", "width", "height", "mask_width", "mask_height", "segments", "stuff"),
        *("status", "reason", "error"),
    )
    WRITES = ("objects", "mask", "removed", "config", "status", "reason", "error")
    DROPS = ("segments",)
    LOADS = ("relations",)

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.config, setup.verdicts, setup.digest)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "relate")
        objects, masks, removed = rows.nulls(), rows.nulls(), rows.nulls()
        scorer, policy = _scorer(self.config.relations), self.config.policy
        rule = rule_of(policy, scorer, self.config.segmenter.model)
        for index in rows.open():
            with rows.attempt(index):
                row = rows.row(index)
                scene = to_scene(row["mask_height"], row["mask_width"], row["segments"], row["stuff"])
                things = decide(scene, scorer, policy, rule)
                labels = [thing.label for thing in things]
                things = overrule(things, judgements(row["uri"], row["image_id"], labels, self.verdicts()))
                objects[index] = [object_row(item, row["height"], row["width"]) for item in things]
                mask = removal_mask(things, policy, self.config.inpainter)
                removed[index] = 0.0
                if mask is None:
                    rows.finish(index, Status.UNCHANGED)
                else:
                    masks[index] = Rle.encode(mask).counts.decode("ascii")
                    removed[index] = float(np.mean(mask))
        digest = [self.digest or self.config.digest] * len(batch)
        return rows.table(self.DROPS, objects=objects, mask=masks, removed=removed, config=digest)
