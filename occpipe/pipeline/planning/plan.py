"""The time and cost of a run from measured rates, its placement, and what bounds it. Pure arithmetic.

A stage alone can do `workers / worker_s` images/s. The stages share cores, GPUs, the driver and the listing; the network
and the store count where their rates are known. The smallest of these bounds the run. Work moves in blocks of about
`ray.block_mb` of pixels through the stages, which form a line, so

    wall = start + one block from end to end + the most that any of the bounds needs for its other blocks + end

which is exact for equal blocks and one worker a stage (the makespan of a flow shop). The start includes the listing of
the first shard, the end the commit of the last one. It leaves out late or lost nodes, images that
differ much, the slow growth of pools, and a head that is a node of its own. It supposes that the store copies an image
that stays as it is. Between two different stores such an image passes the network twice more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from occpipe.core.config_placement import Placement, PoolPlacement, TaskPlacement
from occpipe.core.errors import CapacityError
from occpipe.pipeline.planning.rates import SHARD_IMAGES, Rates
from occpipe.pipeline.steps import POOLS, STAGES
from occpipe.pipeline.units import MAX_UNIT_ROWS, unit_rows

PAGE_KEYS = 1_000
"""Keys of one page of a listing."""
LIST_REQUESTS = 8
"""Requests at once of a task that lists."""
UNLIMITED = 1_000_000
"""Workers that no cluster has: a pool of that `max_size` grows as far as the nodes allow."""
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal nodes: cores and GPUs of one, its price an hour, and its network in Gbit/s; writes/s that the store takes."""

    nodes: int
    cpus: float
    gpus: float = 0
    price: float = 0
    gbps: float | None = None
    writes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """One thing that limits a run: `workers` that take `seconds` for an image each, and `unit` images at a time."""

    name: str
    workers: int
    seconds: float
    unit: int = 1

    @property
    def images_per_s(self) -> float:
        """What it can do where nothing else limits the run; infinite where it costs nothing."""
        return self.workers / self.seconds if self.seconds else math.inf

    def seconds_for(self, images: int) -> float:
        """Seconds of the busiest worker, since a unit is not divided."""
        share = math.ceil(math.ceil(images / self.unit) / self.workers) * self.unit
        return min(images, share) * self.seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of a run; times in seconds. `bounds` are the stages in order, then what they share."""

    images: int
    cluster: Cluster
    bounds: tuple[Bound, ...]
    block_rows: int
    shards: int
    fixed_s: float
    busy_share: float
    """Share of the cluster's free cores that the run uses at its full rate."""

    @property
    def bound(self) -> Bound:
        """What limits the run: the smallest."""
        return min(self.bounds, key=lambda bound: bound.images_per_s)

    @property
    def images_per_s(self) -> float:
        """The rate once all stages are at work."""
        return self.bound.images_per_s

    @property
    def fill_s(self) -> float:
        """One block from end to end, while the other stages wait for it or have nothing more to do."""
        return sum(bound.seconds for bound in self.bounds if bound.name in STAGES) * self.block_rows

    @property
    def wall_s(self) -> float:
        """The whole run, from the start of the command to its end."""
        whole = [bound.seconds_for(self.images) for bound in self.bounds]
        rest = max(seconds - bound.seconds * self.block_rows for seconds, bound in zip(whole, self.bounds, strict=True))
        return self.fixed_s + max(self.fill_s + rest, *whole)  # what is shared may take longer than the line of stages

    @property
    def cost(self) -> float:
        """Price of all nodes for that time, in the currency of the price."""
        return self.cluster.nodes * self.cluster.price * self.wall_s / 3600

    @property
    def cost_per_million(self) -> float:
        """Of a million such images at this rate."""
        return self.cost / self.images * 1e6

    def workers(self, stage: str) -> int:
        """How many workers one of STAGES has."""
        return next(bound.workers for bound in self.bounds if bound.name == stage)


def block_rows(rates: Rates, images: int, block_mb: int, shard_images: int = SHARD_IMAGES) -> int:
    """Images that travel together: as many as have `block_mb` of pixels, and no more than a read task has."""
    return max(
        1, min(int(block_mb * 2**20 / rates.pixels_per_image), unit_rows(min(images, shard_images), MAX_UNIT_ROWS))
    )


def make_plan(
    rates: Rates,
    images: int,
    cluster: Cluster,
    at: Placement,
    block_mb: int = 32,
    shard_images: int = SHARD_IMAGES,
) -> Plan:
    """What a run over so many images takes. Raises CapacityError where the smallest form of the pools does not fit."""
    rows = block_rows(rates, images, block_mb, shard_images)
    pools, left = _fill_nodes(rates, cluster, at)
    bounds = []
    for stage in STAGES:
        workers = pools[stage] if stage in POOLS else _slots(getattr(at, stage), left)
        unit = unit_rows(min(images, shard_images), MAX_UNIT_ROWS) if stage == "load" else rows
        bounds.append(Bound(stage, workers, rates.of(stage).worker_s, unit))
    own = rates.overhead
    cores_s = rates.cpu_s / (cluster.nodes * cluster.cpus * rates.machine.free)
    bytes_moved = rates.bytes_per_image * (
        1 + 2 * rates.removal_share
    )  # read; what is filled is read again and written
    shared = {
        "CPUs for tasks": _task_cpus(rates, at) / max(left, _EPSILON),
        "driver": own.driver_s / rows,
        "cores": cores_s,
        "GPUs": _ratio(sum(rates.alone(stage).gpu_s for stage in POOLS), cluster.nodes * cluster.gpus),
        "network": _ratio(8e-9 * bytes_moved, cluster.nodes * (cluster.gbps or 0)),
        "store": _ratio(1 + 1 / rows, cluster.writes_per_s or 0),  # an image, and a part for each block
    }
    bounds += [Bound(name, 1, seconds) for name, seconds in shared.items()]
    bounds.append(Bound("listing", LIST_REQUESTS, own.page_s / PAGE_KEYS, PAGE_KEYS))
    one_shard = min(images, shard_images)
    fixed_s = own.start_s + math.ceil(one_shard / PAGE_KEYS) * own.page_s
    fixed_s += own.end_s + own.commit_s * one_shard / SHARD_IMAGES
    plan = Plan(images, cluster, tuple(bounds), rows, math.ceil(images / shard_images), fixed_s, 0.0)
    return replace(plan, busy_share=plan.images_per_s * cores_s)


def _fill_nodes(rates: Rates, cluster: Cluster, at: Placement) -> tuple[dict[str, int], float]:
    """Actors of each pool, and the CPUs they leave to tasks.

    First the smallest form; then, one by one, an actor for the slower pool while it has room and the tasks keep up.
    """
    free = [[cluster.cpus, cluster.gpus] for _ in range(cluster.nodes)]
    first = dict.fromkeys(POOLS, 0)  # nodes before this one are full for that pool
    pools: dict[str, PoolPlacement] = {name: getattr(at, name) for name in POOLS}
    one_task = max(getattr(at, name).num_cpus for name in STAGES if name not in POOLS)
    left = cluster.nodes * cluster.cpus

    def put(name: str) -> bool:
        nonlocal left
        pool = pools[name]
        for node in range(first[name], cluster.nodes):
            cpus, gpus = free[node]
            if pool.num_cpus <= cpus + _EPSILON and pool.num_gpus <= gpus + _EPSILON:
                free[node] = [cpus - pool.num_cpus, gpus - pool.num_gpus]
                left -= pool.num_cpus
                return True
            first[name] = node + 1
        return False

    counts = {name: pool.min_size for name, pool in pools.items()}
    if not all(put(name) for name in POOLS for _ in range(counts[name])) or left < one_task - _EPSILON:
        need = ", ".join(
            f"{name} {p.min_size} x {p.num_cpus:g} CPUs and {p.num_gpus:g} GPUs" for name, p in pools.items()
        )
        have = f"{cluster.nodes} x {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs"
        raise CapacityError(f"the pools ({need}) and a task of {one_task:g} CPUs do not fit: the cluster has {have}")
    while True:
        rate, name = min((_ratio(counts[n], rates.of(n).worker_s, math.inf), n) for n in POOLS)
        room = left - pools[name].num_cpus
        if counts[name] >= pools[name].max_size or rate == math.inf or room < one_task - _EPSILON:
            break
        if _tasks_do(rates, at, room) < rate:
            break
        if not put(name):
            break
        counts[name] += 1
    return counts, left


def _task_cpus(rates: Rates, at: Placement) -> float:
    """Seconds of Ray's CPUs that the tasks hold for an image."""
    tasks: dict[str, TaskPlacement] = {name: getattr(at, name) for name in STAGES if name not in POOLS}
    return sum(task.num_cpus * rates.of(name).worker_s for name, task in tasks.items())


def _tasks_do(rates: Rates, at: Placement, left: float) -> float:
    """Images/s that the stages of tasks manage with so many of Ray's CPUs."""
    stages = [name for name in STAGES if name not in POOLS]
    each = [_ratio(_slots(getattr(at, name), left), rates.of(name).worker_s, math.inf) for name in stages]
    return min(_ratio(left, _task_cpus(rates, at), math.inf), *each)


def _slots(task: TaskPlacement, left: float) -> int:
    fit = int(left / task.num_cpus + _EPSILON) if task.num_cpus else UNLIMITED
    return max(1, min(fit, task.max_tasks or UNLIMITED))


def _ratio(value: float, over: float, otherwise: float = 0.0) -> float:
    """A cost over a capacity; a capacity of 0 stands for one that is not there or not limited."""
    return value / over if over else otherwise
