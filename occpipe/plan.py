"""What a run will take, from measured rates: what goes where, what bounds it, the time and the cost. Pure arithmetic.

A stage alone can do `workers / worker_s` images/s. Beside that there is what all stages share: cores, GPUs, the driver,
and, where they are given, the network and the store. The smallest of these bounds the run. Work moves in blocks through
the stages, which form a line, so

    wall = start + one block from end to end + the most that any of the bounds needs for its other blocks + end

which is exact for equal blocks and one worker a stage (the makespan of a flow shop). What it leaves out: nodes that come
late or go, images that differ much, Ray growing its pools one by one, and the head where it is a node of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from occpipe.config import Placement, PoolPlacement, TaskPlacement
from occpipe.errors import CapacityError, ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]

STAGES = ("fetch", "segment", "relate", "inpaint", "sink")
POOLS = ("segment", "inpaint")
UNIT_ROWS = 64
"""Images of the smallest block and read tasks at most, as discover has them (a test compares): importing it starts Ray."""
MAX_READ_TASKS = 4_096
UNLIMITED = 1_000_000
"""Workers that no cluster has: a pool of that `max_size` grows as far as the nodes allow."""
_EPSILON = 1e-9


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Seconds(_Part):
    """What an image costs in a stage alone, in seconds: of the worker that has it, of CPU cores, and of a GPU."""

    worker_s: Amount
    cpu_s: Amount
    gpu_s: Amount = 0


class Machine(_Part):
    """Where rates were measured. `free` is the share of the cores that other work left; `gpu` is null without one."""

    cpus: int = Field(ge=1)
    cpu_model: str
    gpu: str | None
    free: Annotated[float, Field(gt=0, le=1)]


class Overhead(_Part):
    """What the pipeline adds to its stages.

    `start_s` until the first block is begun and `end_s` after the last one is written, once a run; `cpu_s` of cores and
    `worker_s` of a pool's worker for an image; `driver_s` of the driver's core for a block, at most.
    """

    start_s: Amount
    end_s: Amount
    cpu_s: Amount
    worker_s: Amount
    driver_s: Amount


class Rates(_Part):
    """A file of measured rates, as `benchmarks/stages.py` writes it; all times in seconds, sizes in bytes.

    `inpaint` is for an image that has a removal, `untouched` for one that passes that stage as it is. `config` is the
    digest of the config, `threads` are a segmenter's, `images` those that the stages were measured on.
    """

    version: Literal[1] = 1
    config: str
    machine: Machine
    images: int = Field(ge=1)
    threads: int = Field(ge=1)
    bytes_per_image: Annotated[float, Field(gt=0)]
    removal_share: Share
    fetch: Seconds
    segment: Seconds
    relate: Seconds
    inpaint: Seconds
    untouched: Seconds
    sink: Seconds
    overhead: Overhead

    def of(self, stage: str) -> Seconds:
        """Seconds for the mean image in one of STAGES, with what the pipeline adds to a pool's worker."""
        if stage not in POOLS:
            seconds: Seconds = getattr(self, stage)
            return seconds
        own, extra = self.segment, self.overhead.worker_s
        if stage == "inpaint":
            parts = [(self.removal_share, self.inpaint), (1 - self.removal_share, self.untouched)]
            own = Seconds(**{key: sum(w * getattr(s, key) for w, s in parts) for key in Seconds.model_fields})
        return own.model_copy(update={"worker_s": own.worker_s + extra})

    @property
    def cpu_s(self) -> float:
        """Seconds of cores for the mean image in all stages, with what the pipeline adds."""
        return sum(self.of(stage).cpu_s for stage in STAGES) + self.overhead.cpu_s


def read_rates(path: Path) -> Rates:
    """The rates of a file. Raises ConfigError, in one line, where it is missing or not one of this version."""
    try:
        return Rates.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; benchmarks/stages.py writes such a file") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = " ".join(first["msg"].split())  # a JSON error quotes the input, line breaks and all
        raise ConfigError(f"{path} is no file of rates: {f'{where}: ' if where else ''}{message}") from None


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
    """What is expected of a run; times in seconds. `bounds` are the stages in order, then what they share."""

    images: int
    cluster: Cluster
    bounds: tuple[Bound, ...]
    block_rows: int
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
    shared = {
        "cores": rates.cpu_s / cores,
        "CPUs for tasks": _task_cpus(rates, at) / max(left, _EPSILON),
        "GPUs": _ratio(sum(rates.of(stage).gpu_s for stage in POOLS), cluster.nodes * cluster.gpus),
        "driver": rates.overhead.driver_s / rows,
        "network": _ratio(16e-9 * rates.bytes_per_image, cluster.nodes * (cluster.gbps or 0)),  # read and written
        "store": _ratio(1.0, cluster.writes_per_s or 0),
    }
    bounds += [Bound(name, 1, seconds) for name, seconds in shared.items()]
    plan = Plan(images, cluster, tuple(bounds), rows, rates.overhead.start_s + rates.overhead.end_s, 0.0)
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
