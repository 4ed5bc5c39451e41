"""What a run will take, from measured rates: what goes where, what bounds it, the time and the cost. Pure arithmetic.

A stage alone can do `workers / worker_s` images/s. Beside that there is what all stages share: cores, GPUs, the driver,
and, where they are given, the network and the store. The smallest of these bounds the run. Work moves in blocks through
the stages, which form a line, so

    wall = start + one block from end to end + the most that any of the bounds needs for its other blocks + end

which is exact for equal blocks and one worker a stage (the makespan of a flow shop). What it leaves out: nodes that come
late or go, images that differ much, Ray growing its pools one by one, and the head where it is a node of its own.
A run without Ray has equal processes that do all stages, to which images are dealt so that they end together: its block
is an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from occpipe.config import Placement, PoolPlacement, TaskPlacement, threads_on
from occpipe.errors import CapacityError, ConfigError
from occpipe.placing import POOLS, STAGES, crew_on
from occpipe.rates import Rates

UNIT_ROWS = 64
"""Images of the smallest block and read tasks at most, as discover and the source have them (a test compares): importing
the source takes Ray's seconds."""
MAX_READ_TASKS = 4_096
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
    """One thing that limits a run: `workers` that take `seconds` for an image each."""

    name: str
    workers: int
    seconds: float

    @property
    def images_per_s(self) -> float:
        """What it can do where nothing else limits the run; infinite where it costs nothing."""
        return self.workers / self.seconds if self.seconds else math.inf

    def seconds_for(self, images: int, block_rows: int) -> float:
        """Seconds of the busiest worker, since a block is not divided."""
        share = math.ceil(math.ceil(images / block_rows) / self.workers) * block_rows
        return min(images, share) * self.seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of a run; times in seconds. `bounds` are the stages in order, then what they share.

    `threads` are those of a segmenter.
    """

    images: int
    cluster: Cluster
    bounds: tuple[Bound, ...]
    block_rows: int
    fixed_s: float
    busy_share: float
    """Share of the cluster's free cores that the run uses at its full rate."""
    threads: int
    on_ray: bool = True

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
        rows = min(self.images, self.block_rows)
        return sum(bound.seconds for bound in self.bounds if bound.name in STAGES) * rows

    @property
    def wall_s(self) -> float:
        """The whole run, from the start of the command to its end."""
        rows = min(self.images, self.block_rows)
        whole = [bound.seconds_for(self.images, self.block_rows) for bound in self.bounds]
        rest = max(seconds - bound.seconds * rows for seconds, bound in zip(whole, self.bounds, strict=True))
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


def block_rows(rates: Rates, images: int, block_mb: int, at: Placement) -> int:
    """Images that travel together: a read task's, cut at `block_mb`, but no less than the segmenter takes at once."""
    per_task = UNIT_ROWS * math.ceil(math.ceil(images / UNIT_ROWS) / MAX_READ_TASKS)
    return max(min(per_task, int(block_mb * 2**20 / rates.bytes_per_image)), at.segment.batch_size)


def make_plan(rates: Rates, images: int, cluster: Cluster, at: Placement, block_mb: int = 32) -> Plan:
    """What a run over so many images takes. Raises CapacityError where the smallest form of the pools does not fit."""
    rows = block_rows(rates, images, block_mb, at)
    pools, left = _fill_nodes(rates, cluster, at)
    bounds = [
        Bound(stage, pools[stage] if stage in POOLS else _slots(getattr(at, stage), left), rates.of(stage).worker_s)
        for stage in STAGES
    ]
    cores = cluster.nodes * cluster.cpus * rates.machine.free
    of_ray = {
        "CPUs for tasks": _task_cpus(rates, at) / max(left, _EPSILON),
        "driver": rates.overhead.driver_s / rows,
    }
    bounds += [Bound(name, 1, seconds) for name, seconds in of_ray.items()]
    threads = threads_on(int(cluster.cpus), at.segment.threads)
    fixed_s = rates.overhead.start_s + rates.overhead.end_s
    return _bounded(Plan(images, cluster, tuple(bounds), rows, fixed_s, 0.0, threads), rates, rates.cpu_s / cores)


def plan_without_ray(rates: Rates, images: int, node: Cluster, at: Placement) -> Plan:
    """What such a run takes on one node (see `occpipe.crew`). Raises ConfigError where the rates do not know such runs."""
    if (crew := rates.crew) is None:
        raise ConfigError(
            "the rates are older than runs without Ray, such as this one would be: measure them again with"
            " benchmarks/stages.py, or plan a run on Ray (--set ray.from_images=0)"
        )
    workers, cores_each = crew_on(int(node.cpus), images)

    def in_worker(stage: str) -> float:
        seconds = rates.alone(stage)
        threads = threads_on(cores_each, getattr(at, stage).threads) if stage in POOLS else 1
        return max(seconds.worker_s, seconds.cpu_s / threads)

    bounds = [Bound(stage, workers, in_worker(stage)) for stage in STAGES]
    chain_s = sum(
        bound.seconds for bound in bounds if bound.name not in ("fetch", "sink")
    )  # which have their own threads
    bounds.append(Bound("workers", workers, chain_s + crew.worker_s))
    threads = threads_on(cores_each, at.segment.threads)
    plan = Plan(images, node, tuple(bounds), 1, crew.start_s + crew.end_s, 0.0, threads, on_ray=False)
    return _bounded(plan, rates, (rates.stages_cpu_s + crew.cpu_s) / (node.cpus * crew.free))


def _bounded(plan: Plan, rates: Rates, cores_s: float) -> Plan:
    """The plan with what any run shares: cores, of which an image takes `cores_s`, GPUs, network, store."""
    cluster = plan.cluster
    shared = {
        "cores": max(0.0, cores_s),
        "GPUs": _ratio(sum(rates.alone(stage).gpu_s for stage in POOLS), cluster.nodes * cluster.gpus),
        "network": _ratio(16e-9 * rates.bytes_per_image, cluster.nodes * (cluster.gbps or 0)),  # read and written
        "store": _ratio(1.0, cluster.writes_per_s or 0),
    }
    plan = replace(plan, bounds=(*plan.bounds, *(Bound(name, 1, seconds) for name, seconds in shared.items())))
    return replace(plan, busy_share=plan.images_per_s * shared["cores"])


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
