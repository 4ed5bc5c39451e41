"""The steps of a job, declared once: executor, planner, capacity check, monitor and docs read them here.

    list     corpus -> manifest shards                 tasks, bound by the store's pages
    load     bytes -> pixels at the model's size       tasks, bound by decoding; the read of Ray Data
    segment  pixels -> things and stuff                pool A, bound by the forward pass
    relate   verdicts and the removal mask             tasks, milliseconds an image
    inpaint  rows with a mask: bytes -> new bytes      pool B, bound by the model on crops
    write    the image first, then a part with rows    tasks, bound by the network
    commit   the parts of a shard -> its file          tasks, one a shard

Two pools, because the stages differ in how many images need them: segment sees each image, inpaint those with a removal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from occpipe.dataset.versions import Command
from occpipe.stages.close_scan import CloseScan
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.load import Load
from occpipe.stages.load_detections import LoadDetections
from occpipe.stages.relate import Relate
from occpipe.stages.reuse_results import ReuseResults
from occpipe.stages.segment import SegmentStage
from occpipe.stages.stage import Setup, Stage
from occpipe.stages.write import Write


@dataclass(frozen=True)
class Step:
    """One step of a job between the listing and the commit.

    Attributes:
        name: Its key in `placement`, and its name in statistics, metrics and plans.
        stages: The stages that it runs on a block, one after the other.
        is_pool: It runs in a pool of actors, because its one stage holds a model as `model`.
        is_skippable: A run that stops leaves out the blocks that this step has not begun.
    """

    name: str
    stages: tuple[type[Stage], ...]
    is_pool: bool = False
    is_skippable: bool = False

    def build(self, setup: Setup) -> Chain:
        """The stages of the step for a job."""
        return Chain(tuple(stage.build(setup) for stage in self.stages))


@dataclass(frozen=True)
class Chain:
    """Stages that run in one task."""

    stages: tuple[Stage, ...]

    def __call__(self, batch: pa.Table) -> pa.Table:
        for stage in self.stages:
            batch = stage(batch)
        return batch


_SEGMENT = Step("segment", (SegmentStage,), is_pool=True, is_skippable=True)
_LOAD = Step("load", (Load,), is_skippable=True)
_INPAINT = Step("inpaint", (InpaintStage,), is_pool=True)
_WRITE = Step("write", (Write,))

STEPS: dict[Command, tuple[Step, ...]] = {
    "clean": (_LOAD, _SEGMENT, Step("relate", (Relate,)), _INPAINT, _WRITE),
    "scan": (_LOAD, _SEGMENT, Step("relate", (Relate,)), Step("write", (CloseScan,))),
    "apply": (
        Step("load", (LoadDetections,), is_skippable=True),
        Step("relate", (Relate, ReuseResults)),
        _INPAINT,
        _WRITE,
    ),
}
"""The steps of each command, in data order."""

STAGES = tuple(step.name for step in STEPS["clean"])
"""The names of all steps, as `placement` has them."""
POOLS = tuple(step.name for step in STEPS["clean"] if step.is_pool)
"""The names of those that run in pools of actors."""


def parts_of(steps: Iterable[Step]) -> tuple[str, ...]:
    """The parts of a config whose models these steps load."""
    return tuple(part for step in steps for stage in step.stages for part in stage.LOADS)
