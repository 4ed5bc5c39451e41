"""Which stage is to blame, and what to turn, for utilization that are written down here."""

from __future__ import annotations

from typing import Any

import pytest

from occpipe.core.config_placement import Placement, PoolPlacement, StoragePlacement, TaskPlacement
from occpipe.pipeline.monitoring.bottleneck import find_limit, load_of
from occpipe.pipeline.monitoring.utilization import Utilization
from occpipe.pipeline.steps import POOLS, STAGES

FOUR_TASKS = Placement(load=StoragePlacement(max_tasks=4), write=StoragePlacement(max_tasks=4))

ROOM = {"CPU": 8.0, "GPU": 2.0}
UNBOUNDED = Placement(
    load=StoragePlacement(max_tasks=None), relate=TaskPlacement(max_tasks=None), write=StoragePlacement(max_tasks=None)
)


def line(**changes: dict[str, Any]) -> dict[str, Utilization]:
    """A line in which every pool works half its time and every stage of tasks has one at work, but for `changes`."""
    found = {}
    for stage in STAGES:
        values = {"busy": 0.7, "cpu": 0.5} if stage in POOLS else {"busy": None, "cpu": None}
        values |= {"images_per_s": 5.0, "at_work": 1.0, "queue": 64, "gpu": None, **changes.get(stage, {})}
        found[stage] = Utilization(**values)
    return found


@pytest.mark.parametrize(
    ("changes", "placement", "free", "says"),
    [
        pytest.param({}, Placement(), ROOM, None, id="nothing is at its limit"),
        pytest.param(
            {"load": {"at_work": 3.9}, "segment": {"busy": 0.31}},
            FOUR_TASKS,
            ROOM,
            "segment pool starved (at work 31% of its time): load is the limit (98% of its tasks at work), "
            "raise placement.load.max_tasks (now 4)",
            id="load",
        ),
        pytest.param(
            {"segment": {"busy": 0.97}, "inpaint": {"busy": 0.02}},
            FOUR_TASKS,
            ROOM,
            "inpaint pool starved (at work 2% of its time): segment is the limit (at work 97% of its time), "
            "raise placement.segment.max_size (now 1)",
            id="segment",
        ),
        pytest.param(
            {"segment": {"busy": 0.4}, "inpaint": {"busy": 0.95}},
            Placement(inpaint=PoolPlacement(max_size=3)),
            ROOM,
            "segment pool held up (at work 40% of its time): inpaint is the limit (at work 95% of its time), "
            "raise placement.inpaint.max_size (now 3)",
            id="inpaint",
        ),
        pytest.param(
            {"segment": {"busy": 0.2}, "inpaint": {"busy": 0.1}, "write": {"at_work": 3.6}},
            FOUR_TASKS,
            ROOM,
            "segment pool held up (at work 20% of its time) and inpaint pool held up (at work 10% of its time): "
            "write is the limit (90% of its tasks at work), raise placement.write.max_tasks (now 4)",
            id="write",
        ),
        pytest.param(
            {"segment": {"busy": 0.99, "cpu": 0.96}},
            FOUR_TASKS,
            ROOM,
            "segment is the limit (at work 99% of its time), "
            "and the cores are in use to 96%: add nodes, or cores to a node",
            id="cores",
        ),
        pytest.param(
            {"segment": {"busy": 0.99, "cpu": 0.96, "gpu": 0.9}},
            Placement(segment=PoolPlacement(num_gpus=1, max_size=8)),
            {"CPU": 8.0, "GPU": 0.5},
            "segment is the limit (at work 99% of its time), "
            "and Ray has no GPU left: raise placement.segment.max_size (now 8) and add nodes",
            id="no GPU left",
        ),
        pytest.param(
            {"segment": {"busy": 0.99, "gpu": 0.22}},
            Placement(segment=PoolPlacement(num_gpus=1, max_size=8)),
            ROOM,
            "segment is the limit (at work 99% of its time), but its GPUs are at work 22% of the time only: "
            "lower placement.segment.num_gpus (now 1), so that more actors share one",
            id="an idle GPU",
        ),
        pytest.param(
            {"load": {"at_work": 40.0}},
            UNBOUNDED,
            ROOM,
            None,
            id="tasks without a bound are not at it",
        ),
        pytest.param(
            {"segment": {"busy": 0.2}, "inpaint": {"busy": 0.1}},
            UNBOUNDED,
            {"GPU": 2.0},
            "both pools starved: no CPU is free for tasks, add nodes or lower placement.*.num_cpus",
            id="no CPU for tasks",
        ),
        pytest.param({name: {"busy": None} for name in POOLS}, Placement(), {}, None, id="no batch ended"),
    ],
)
def test_the_limit_and_the_knob(
    changes: dict[str, Any], placement: Placement, free: dict[str, float], says: str | None
) -> None:
    assert find_limit(line(**changes), placement, free) == says


def test_the_load_of_a_stage() -> None:
    use = line()["segment"]
    assert load_of(use, PoolPlacement()) == 0.7
    assert load_of(use, TaskPlacement(max_tasks=4)) == 0.25
    assert load_of(use, TaskPlacement(max_tasks=None)) is None
