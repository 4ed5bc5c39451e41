"""Plans: figures that were worked out by hand, and what must hold for every cluster. The command: test_cli_plan.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.overheads import Moment, overhead
from occpipe.cli.plan import advice, duration, scaled, sentences
from occpipe.core.config import Config
from occpipe.core.config_placement import Placement, PoolPlacement, StoragePlacement, TaskPlacement
from occpipe.core.errors import CapacityError
from occpipe.pipeline.planning.plan import Cluster, block_rows, make_plan
from occpipe.pipeline.planning.rates import SHARD_IMAGES, Rates
from occpipe.pipeline.steps import POOLS, STAGES
from occpipe.pipeline.units import MAX_UNIT_ROWS, UNITS_PER_SHARD, unit_rows

LAPTOP = Cluster(nodes=1, cpus=4)
GPU_NODE = Cluster(nodes=1, cpus=16, gpus=1, price=2.0)
GPU_POOLS = Placement(
    segment=PoolPlacement(num_cpus=2, num_gpus=0.5, max_size=64),
    inpaint=PoolPlacement(num_cpus=2, num_gpus=0.5, max_size=64),
)


MACHINE = {"cpus": 4, "cpu_model": "a processor", "gpu": None, "free": 1.0}
NOTHING_MORE = dict.fromkeys(("start_s", "end_s", "cpu_s", "worker_s", "driver_s", "page_s"), 0.0)


def one(worker: float, cpu: float | None = None, gpu: float = 0.0) -> dict[str, float]:
    return {"worker_s": worker, "cpu_s": worker if cpu is None else cpu, "gpu_s": gpu}


def rates(**changes: Any) -> Rates:
    """One image in ten has a removal, so inpaint takes 0.05 s for the mean image."""
    values = {
        "config": Config().digest,
        "machine": MACHINE,
        "images": 60,
        "threads": 2,
        "bytes_per_image": 100_000,
        "pixels_per_image": 2**19,
        "removal_share": 0.1,
        "load": one(0.002),
        "segment": one(0.1),
        "relate": one(0.004),
        "inpaint": one(0.5),
        "write": one(0.004),
        "overhead": NOTHING_MORE | {"start_s": 10.0, "end_s": 2.0, "cpu_s": 0.04, "driver_s": 0.064},
    }
    return Rates.model_validate(values | changes)


def test_a_laptop_is_bound_by_its_one_segmenter() -> None:
    plan = make_plan(rates(), 640, LAPTOP, Placement())
    assert plan.bound.name == "segment"
    assert plan.images_per_s == pytest.approx(10)
    assert {stage: plan.workers(stage) for stage in STAGES} == dict(zip(STAGES, (2, 1, 2, 1, 2), strict=True))
    # One block of 64 passes all stages, 0.002 + 0.1 + 0.004 + 0.05 + 0.004 s an image; 9 more pass the segmenter.
    assert plan.fill_s == pytest.approx(64 * 0.16)
    assert plan.wall_s == pytest.approx(10 + 2 + 64 * 0.16 + 9 * 6.4)
    assert plan.busy_share == pytest.approx(10 * 0.2 / 4)


def test_stages_share_the_cores() -> None:
    """Four segmenters could do 40 images/s, but an image takes 0.2 s of cores, and there are four."""
    at = Placement(segment=PoolPlacement(max_size=4), inpaint=PoolPlacement(max_size=4))
    plan = make_plan(rates(), 6400, LAPTOP, at)
    assert plan.bound.name == "cores"
    assert plan.images_per_s == pytest.approx(20)
    assert plan.busy_share == pytest.approx(1)
    half = make_plan(rates(machine=MACHINE | {"free": 0.5}), 6400, LAPTOP, at)
    assert half.bound.name == "cores"
    assert half.images_per_s == pytest.approx(10)


def test_pools_grow_as_the_slower_one_needs() -> None:
    """Eight half GPUs: five that segment at 0.02 s give 250 images/s, three that inpaint at 0.01 s give 300."""
    fast = rates(segment=one(0.02, 0.01, 0.01), inpaint=one(0.1, 0.01, 0.01))
    plan = make_plan(fast, 10**6, Cluster(4, cpus=16, gpus=1, price=2.0), GPU_POOLS)
    assert (plan.workers("segment"), plan.workers("inpaint")) == (5, 3)
    assert plan.cost == pytest.approx(4 * 2.0 * plan.wall_s / 3600)
    assert plan.cost_per_million == pytest.approx(plan.cost)


def test_a_run_of_few_blocks_does_not_use_all_workers() -> None:
    at = Placement(
        load=StoragePlacement(max_tasks=None),
        segment=PoolPlacement(num_cpus=0, max_size=100),
        relate=TaskPlacement(max_tasks=None),
        write=StoragePlacement(max_tasks=None),
    )
    plan = make_plan(rates(inpaint=one(0.0), overhead=NOTHING_MORE), 128, Cluster(1, cpus=1000), at)
    assert plan.workers("segment") == 100
    assert plan.wall_s == pytest.approx(8 * 0.11, rel=0.02), "16 blocks on 16 workers take as long as one"


def test_overhead_counts_for_the_workers_of_pools_and_for_the_cores() -> None:
    slow = rates(overhead=NOTHING_MORE | {"cpu_s": 0.04, "worker_s": 0.025})
    assert slow.of("segment").worker_s == pytest.approx(0.125)
    assert slow.of("inpaint").worker_s == pytest.approx(0.075)
    assert slow.of("write").worker_s == pytest.approx(0.004)
    assert slow.cpu_s == pytest.approx(0.002 + 0.1 + 0.004 + 0.05 + 0.004 + 0.04)


@pytest.mark.parametrize(
    ("images", "block_mb", "pixels", "shard", "rows"),
    [
        (10**6, 32, 2**20, SHARD_IMAGES, 32),
        (10**6, 96, 3 * 2**18, SHARD_IMAGES, 128),
        (10**6, 32, 2**26, SHARD_IMAGES, 1),
        (10**6, 32, 3 * 64 * 48, SHARD_IMAGES, SHARD_IMAGES // UNITS_PER_SHARD),
        (10**6, 32, 3 * 64 * 48, 65_536, MAX_UNIT_ROWS),
        (10**6, 32, 3 * 64 * 48, 160, 10),
        (33, 32, 3 * 64 * 48, SHARD_IMAGES, 4),
    ],
)
def test_a_block_has_some_megabytes_of_pixels(images: int, block_mb: int, pixels: int, shard: int, rows: int) -> None:
    assert block_rows(rates(pixels_per_image=pixels), images, block_mb, shard) == rows


@pytest.mark.parametrize(("images", "rows"), [(1, 4), (160, 10), (500, 32), (1_200, 96), (8_192, 512), (65_536, 1_024)])
def test_a_large_unit_is_cut_into_full_slices(images: int, rows: int) -> None:
    assert unit_rows(images, MAX_UNIT_ROWS) == rows


def test_a_plan_has_the_shards_of_a_run() -> None:
    assert Config().shard.images == SHARD_IMAGES


def test_a_plan_knows_what_lists_and_commits() -> None:
    """9 pages of 0.5 s before the first shard is whole; the last shard, a full one, is committed at the end."""
    own = NOTHING_MORE | {"page_s": 0.5, "commit_s": 4.096}
    plan = make_plan(rates(overhead=own), 2 * SHARD_IMAGES, LAPTOP, Placement())
    assert plan.shards == 2
    assert plan.fixed_s == pytest.approx(9 * 0.5 + 4.096)
    assert rates(overhead=own).cpu_s == pytest.approx(0.16 + 0.0005)
    slow = make_plan(rates(overhead=NOTHING_MORE | {"page_s": 900}), 10**6, LAPTOP, Placement())
    assert slow.bound.name == "listing"
    assert slow.images_per_s == pytest.approx(8 * 1000 / 900), "eight requests at once"


def test_a_read_task_loads_its_images_alone() -> None:
    """18 images are five read tasks of four, whatever the blocks are: the busiest of two workers has three of them."""
    plan = make_plan(rates(load=one(1.0, 0.0), overhead=NOTHING_MORE), 18, LAPTOP, Placement())
    assert plan.workers("load") == 2
    load = next(bound for bound in plan.bounds if bound.name == "load")
    assert load.seconds_for(18) == 12


def test_what_is_filled_passes_the_network_three_times() -> None:
    """An image that stays as it is, is read once: the store copies it."""
    far = Cluster(1, 4, gbps=0.008)
    read_only = make_plan(rates(removal_share=0), 640, far, Placement())
    assert read_only.images_per_s == pytest.approx(10)
    all_filled = make_plan(rates(removal_share=1, inpaint=one(0.0)), 640, far, Placement())
    assert all_filled.images_per_s == pytest.approx(10 / 3)


@pytest.mark.parametrize(
    ("cluster", "changes", "bound", "rate"),
    [
        (
            Cluster(1, 4, gbps=0.004),
            {},
            "network",
            5 / 1.2,
        ),  # 0.1 MB in, and 0.1 MB in and out for one in ten, at 0.5 MB/s
        (Cluster(1, 4, writes_per_s=3), {}, "store", 3 / (1 + 1 / 64)),
        (LAPTOP, {"overhead": NOTHING_MORE | {"driver_s": 64}}, "driver", 1),
        (Cluster(1, 1.5), {"write": one(1.0, 0.0)}, "CPUs for tasks", 0.5 / (0.25 * 1.006)),
    ],
)
def test_what_all_stages_share(cluster: Cluster, changes: dict[str, Any], bound: str, rate: float) -> None:
    plan = make_plan(rates(**changes), 640, cluster, Placement())
    assert plan.bound.name == bound
    assert plan.images_per_s == pytest.approx(rate)


def test_a_gpu_is_shared_by_what_runs_on_it() -> None:
    """Two actors wait for their GPU half of the time each: 0.02 + 0.1 * 0.1 s an image on one GPU."""
    both = rates(segment=one(0.02, 0.0, 0.02), inpaint=one(0.1, 0.0, 0.1))
    plan = make_plan(both, 6400, GPU_NODE, GPU_POOLS)
    assert plan.bound.name == "GPUs"
    assert plan.images_per_s == pytest.approx(1 / 0.03)


def test_pools_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CapacityError, match=r"segment 1 x 2 CPUs and 0\.5 GPUs.*the cluster has 1 x 4 CPUs and 0 GPUs"):
        make_plan(rates(), 10, LAPTOP, GPU_POOLS)
    with pytest.raises(CapacityError, match=r"a task of 0\.25 CPUs"):
        make_plan(rates(), 10, Cluster(1, 1), Placement())


def test_the_advice_is_kept() -> None:
    """What it says to raise gives the rate that it names."""
    said = advice(rates(), make_plan(rates(), 640, LAPTOP, Placement()), Config())
    assert said == (
        "segment is the bound: raise placement.segment.max_size to 2; that gives 20.0 images/s, bound by cores."
    )
    assert make_plan(rates(), 640, LAPTOP, Placement(segment=PoolPlacement(max_size=2))).images_per_s == pytest.approx(
        20
    )


def test_the_advice_where_nothing_helps() -> None:
    said = advice(rates(), make_plan(rates(), 640, Cluster(1, 1.25), Placement()), Config())
    assert said.startswith("cores are the bound: add nodes")
    gpu = Config(placement=GPU_POOLS)
    light = rates(segment=one(0.1, 0.0, 0.0), inpaint=one(0.0))
    assert "no room for more" in advice(light, make_plan(light, 640, GPU_NODE, gpu.placement), gpu)


def test_sentences_say_what_is_idle_and_what_it_costs() -> None:
    said = list(sentences(rates(), make_plan(rates(), 640, Cluster(1, 4, price=3.6), Placement()), Config()))
    assert said[1] == "Idle at that rate: 50% of the cores."
    assert said[2] == (
        "Expected: 1 min 20 s (12 s to start and end, 10 s for a block of 64 from end to end), 8.0 images/s over all."
    )
    assert said[3] == "Removals: in 10.0% of the images, as in a sample of 60."
    assert said[4] == "Cost: 0.08, or 124.75 for a million images."


def test_duration() -> None:
    said = [duration(seconds) for seconds in (41.4, 59.9, 725, 12_000)]
    assert said == ["41 s", "1 min 0 s", "12 min 5 s", "3 h 20 min"]


SECONDS = st.floats(0, 2)
STAGE = st.builds(one, SECONDS, SECONDS, SECONDS)
POOL: dict[str, st.SearchStrategy[Any]] = {
    "num_cpus": st.sampled_from([0.25, 0.5, 1, 2]),
    "num_gpus": st.sampled_from([0, 0.25, 0.5, 1]),
    "max_size": st.integers(1, 40),
}
ANY_RATES = st.builds(
    rates,
    **dict.fromkeys(STAGES, STAGE),
    removal_share=st.floats(0, 1),
)
ANY_PLACEMENT = st.builds(Placement, segment=st.builds(PoolPlacement, **POOL), inpaint=st.builds(PoolPlacement, **POOL))
BIG_ENOUGH = st.builds(Cluster, st.integers(1, 20), st.sampled_from([5, 8, 33.5]), st.sampled_from([2, 3, 8]))


@settings(max_examples=150, deadline=None)
@given(ANY_RATES, ANY_PLACEMENT, BIG_ENOUGH, st.integers(1, 100_000), st.integers(1, 9))
def test_more_nodes_are_never_slower(r: Rates, at: Placement, cluster: Cluster, images: int, more: int) -> None:
    """Nor are wider pools. A short run may take a block's way longer, as their actors leave less to the tasks."""
    small = make_plan(r, images, cluster, at)
    wider = make_plan(r, images, cluster, scaled(Config(placement=at)))
    for plan in (make_plan(r, images, Cluster(cluster.nodes + more, cluster.cpus, cluster.gpus), at), wider):
        assert plan.images_per_s >= small.images_per_s * (1 - 1e-9)
        assert plan.wall_s <= (small.wall_s + small.fill_s) * (1 + 1e-9)


@settings(max_examples=150, deadline=None)
@given(ANY_RATES, ANY_PLACEMENT, BIG_ENOUGH, st.integers(1, 100_000))
def test_the_bound_is_the_smallest_and_no_resource_is_given_twice(
    r: Rates, at: Placement, cluster: Cluster, images: int
) -> None:
    plan = make_plan(r, images, cluster, at)
    assert plan.images_per_s == min(bound.images_per_s for bound in plan.bounds)
    assert all(plan.images_per_s * b.seconds / b.workers <= 1 + 1e-9 for b in plan.bounds if math.isfinite(b.seconds))
    assert plan.wall_s >= plan.fixed_s + images / plan.images_per_s * (1 - 1e-9)
    assert all(1 <= plan.workers(pool) <= getattr(at, pool).max_size for pool in POOLS)
    for key, have in (("num_cpus", cluster.cpus), ("num_gpus", cluster.gpus)):
        taken = sum(plan.workers(pool) * getattr(getattr(at, pool), key) for pool in POOLS)
        assert taken <= cluster.nodes * have + 1e-6


def test_overhead_is_what_a_run_has_beside_its_stages() -> None:
    """Blocks of 64 come out at 20, 28 and 36 s, so 0.125 s an image: 0.025 s more than the segmenter alone."""
    seen = [Moment(20, 64, 30), Moment(28, 128, 46), Moment(36, 192, 62), Moment(41, 256, 70), Moment(44, 256, 70)]
    found = overhead(seen, rates(overhead=NOTHING_MORE), driver_s=0.1, commit_s=3.0)
    assert found.worker_s == pytest.approx(0.025)
    assert found.cpu_s == pytest.approx(0.25 - 0.16)
    assert (found.driver_s, found.commit_s, found.end_s) == (0.1, 3, 3)
    assert found.start_s == pytest.approx(20 - 64 * (0.16 + 2 * 0.025))
