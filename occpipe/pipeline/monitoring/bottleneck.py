"""Which stage limits a run, and which knob to turn: rules over the pace of the stages. Pure.

In a line of stages with bounded buffers one is always at work: what is before it is held up, what is after it is starved.
A pool's load is the share of its time that an actor has work; that of tasks is their mean number over `max_tasks`. Where
the highest load is below `AT_LIMIT` no stage is to blame: it may be the start, the listing, or a lack of CPUs for tasks.
"""

from __future__ import annotations

from collections.abc import Mapping

from occpipe.core.config_placement import Placement, PoolPlacement, TaskPlacement
from occpipe.pipeline.monitoring.stage_statistics import Pace
from occpipe.pipeline.steps import POOLS

AT_LIMIT = 0.8
"""Load of a stage from which it counts as the limit; batches end unevenly, so 1.0 is not reached."""
STARVED = 0.6
"""Share of its time with work below which a pool is worth a word."""
CORES_FULL = 0.9
"""Share of a node's cores in use from which more workers would only divide them."""
GPU_IDLE = 0.5
"""Share of a GPU's time at work below which its pool, always busy, does something else with it."""
_EPSILON = 1e-6


def load_of(pace: Pace, at: TaskPlacement | PoolPlacement) -> float | None:
    """How near a stage is to what its placement lets it do, 0 to 1; None where nothing bounds or is known of it."""
    if isinstance(at, TaskPlacement):
        return pace.at_work / at.max_tasks if at.max_tasks else None
    return pace.busy


def find_limit(paces: Mapping[str, Pace], at: Placement, free: Mapping[str, float]) -> str | None:
    """What limits a run and what to turn, as a sentence; None where nothing is to be said.

    `free` are the CPUs and GPUs that Ray has left, and what else it counts.
    """
    stages = list(paces)
    loads = {stage: load_of(paces[stage], getattr(at, stage)) or 0.0 for stage in stages}
    limit = max(stages, key=lambda stage: loads[stage])
    starved = [name for name in POOLS if name in paces and (busy := paces[name].busy) is not None and busy < STARVED]
    if loads[limit] < AT_LIMIT:
        least = min(getattr(at, stage).num_cpus for stage in stages if stage not in POOLS)
        if starved == list(POOLS) and free.get("CPU", 0.0) < least - _EPSILON:
            return "both pools starved: no CPU is free for tasks, add nodes or lower placement.*.num_cpus"
        return None
    words = [_starved(name, paces[name], after=stages.index(name) > stages.index(limit)) for name in starved]
    head = f"{' and '.join(words)}: " if words else ""
    return f"{head}{limit} is the limit{_load(limit, loads[limit])}, {_knob(limit, paces[limit], at, free)}"


def _starved(pool: str, pace: Pace, *, after: bool) -> str:
    return f"{pool} pool {'starved' if after else 'held up'} (at work {pace.busy or 0.0:.0%} of its time)"


def _load(stage: str, load: float) -> str:
    return f" (at work {load:.0%} of its time)" if stage in POOLS else f" ({load:.0%} of its tasks at work)"


def _knob(stage: str, pace: Pace, placement: Placement, free: Mapping[str, float]) -> str:
    at = getattr(placement, stage)
    if isinstance(at, PoolPlacement):
        if pace.gpu is not None and pace.gpu < GPU_IDLE:
            return (
                f"but its GPUs are at work {pace.gpu:.0%} of the time only: lower placement.{stage}.num_gpus "
                f"(now {at.num_gpus:g}), so that more actors share one"
            )
        if pace.cpu is not None and pace.cpu >= CORES_FULL and not at.num_gpus:
            return f"and the cores are in use to {pace.cpu:.0%}: add nodes, or cores to a node"
    knob, now = ("max_size", at.max_size) if isinstance(at, PoolPlacement) else ("max_tasks", at.max_tasks)
    raise_it = f"raise placement.{stage}.{knob} (now {now})"
    needs = {"CPU": at.num_cpus, "GPU": getattr(at, "num_gpus", 0.0)}
    short = [name for name, share in needs.items() if free.get(name, 0.0) < share - _EPSILON]
    if short:
        return f"and Ray has no {' and no '.join(short)} left: {raise_it} and add nodes"
    return raise_it
