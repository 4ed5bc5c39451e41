"""Which stage limits a run, and which key of the config to change: rules over the utilization of the stages. Pure.

In a line of stages with bounded buffers one is always at work: those before it are held up, those after it starve. A pool's
load is the share of its time that an actor has work; that of tasks is their mean number over `max_tasks`. Where the highest
load is below `AT_LIMIT` no stage is to blame: the reason may be the start, the listing, or a lack of CPUs for tasks.
"""

from __future__ import annotations

from collections.abc import Mapping

from occpipe.core.config_placement import Placement, PoolPlacement, TaskPlacement
from occpipe.pipeline.monitoring.utilization import Utilization
from occpipe.pipeline.steps import POOLS

AT_LIMIT = 0.8
"""Load of a stage from which it counts as the limit; batches end unevenly, so 1.0 is not reached."""
STARVED = 0.6
"""Share of its time with work below which a pool is named."""
CORES_FULL = 0.9
"""Share of a node's cores in use from which more workers would only divide them."""
GPU_IDLE = 0.5
"""Share of a GPU's time at work below which its pool, always busy, does something else with it."""
_EPSILON = 1e-6


def load_of(use: Utilization, at: TaskPlacement | PoolPlacement) -> float | None:
    """How near a stage is to the bound of its placement, 0 to 1; None where it has no bound, or no batch ended."""
    if isinstance(at, TaskPlacement):
        return use.at_work / at.max_tasks if at.max_tasks else None
    return use.busy


def find_limit(utilization: Mapping[str, Utilization], at: Placement, free: Mapping[str, float]) -> str | None:
    """What limits a run and which key to change, as a sentence; None where no stage does.

    `free` are the resources that Ray has left, CPUs and GPUs among them.
    """
    stages = list(utilization)
    loads = {stage: load_of(utilization[stage], getattr(at, stage)) or 0.0 for stage in stages}
    limit = max(stages, key=lambda stage: loads[stage])
    starved = [
        name
        for name in POOLS
        if name in utilization and (busy := utilization[name].busy) is not None and busy < STARVED
    ]
    if loads[limit] < AT_LIMIT:
        least = min(getattr(at, stage).num_cpus for stage in stages if stage not in POOLS)
        if starved == list(POOLS) and free.get("CPU", 0.0) < least - _EPSILON:
            return "both pools starved: no CPU is free for tasks, add nodes or lower placement.*.num_cpus"
        return None
    pools = [_starved(name, utilization[name], after=stages.index(name) > stages.index(limit)) for name in starved]
    head = f"{' and '.join(pools)}: " if pools else ""
    return f"{head}{limit} is the limit{_load(limit, loads[limit])}, {_advice(limit, utilization[limit], at, free)}"


def _starved(pool: str, use: Utilization, *, after: bool) -> str:
    return f"{pool} pool {'starved' if after else 'held up'} (at work {use.busy or 0.0:.0%} of its time)"


def _load(stage: str, load: float) -> str:
    return f" (at work {load:.0%} of its time)" if stage in POOLS else f" ({load:.0%} of its tasks at work)"


def _advice(stage: str, use: Utilization, placement: Placement, free: Mapping[str, float]) -> str:
    at = getattr(placement, stage)
    if isinstance(at, PoolPlacement):
        if use.gpu is not None and use.gpu < GPU_IDLE:
            return (
                f"but its GPUs are at work {use.gpu:.0%} of the time only: lower placement.{stage}.num_gpus "
                f"(now {at.num_gpus:g}), so that more actors share one"
            )
        if use.cpu is not None and use.cpu >= CORES_FULL and not at.num_gpus:
            return f"and the cores are in use to {use.cpu:.0%}: add nodes, or cores to a node"
    key, now = ("max_size", at.max_size) if isinstance(at, PoolPlacement) else ("max_tasks", at.max_tasks)
    raise_it = f"raise placement.{stage}.{key} (now {now})"
    needs = {"CPU": at.num_cpus, "GPU": getattr(at, "num_gpus", 0.0)}
    short = [name for name, share in needs.items() if free.get(name, 0.0) < share - _EPSILON]
    if short:
        return f"and Ray has no {' and no '.join(short)} left: {raise_it} and add nodes"
    return raise_it
