"""Whether a cluster has the resources for the smallest form of a run, checked before a job hangs.

Ray waits silently for resources that never come: pools that take every CPU leave none for the tasks between them, and an
actor with a label that no node has never starts. The checks are necessary, not sufficient: the sums over the cluster and
over the nodes of each label selector, and that one node can hold an actor.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import ray
from ray.autoscaler.sdk import request_resources

from occpipe.core.config_placement import Placement, PoolPlacement, TaskPlacement
from occpipe.core.errors import CapacityError
from occpipe.pipeline.steps import STEPS, Step

_EPSILON = 1e-6
_POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Node:
    """What a node has, by the names that Ray counts by, and its labels."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `count` actors, or one task, of a stage take each, on nodes that its selector matches."""

    stage: str
    count: int
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    is_pool: bool
    """Whether its workers stay; tasks end, and others take their place."""


def check_capacity(placement: Placement, timeout_s: float = 0, steps: Sequence[Step] = STEPS["clean"]) -> None:
    """Raise CapacityError, naming what is missing, where the smallest form of these pools and one task do not fit.

    With a timeout the resources are requested of an autoscaling cluster first, which has that long to bring them. The
    request is taken back at the end, because Ray would keep it, and the cluster would never shrink again.
    """
    bundles = list(bundles_of(placement, steps))
    shortage = find_shortage(bundles, _nodes())
    if shortage and timeout_s:
        try:
            _request(bundles)
            shortage = _wait_for(bundles, time.monotonic() + timeout_s)
        finally:
            request_resources(bundles=[])
    if shortage:
        raise CapacityError(shortage)


def _request(bundles: list[Bundle]) -> None:
    each = [bundle for bundle in bundles for _ in range(bundle.count)]
    request_resources(
        bundles=[{key: share for key, share in bundle.resources.items() if share} for bundle in each],
        bundle_label_selectors=[dict(bundle.labels) for bundle in each],
    )


def _wait_for(bundles: list[Bundle], deadline: float) -> str | None:
    """What is still missing at the deadline; None as soon as nothing is."""
    while (shortage := find_shortage(bundles, _nodes())) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return shortage


def bundles_of(placement: Placement, steps: Sequence[Step] = STEPS["clean"]) -> Iterator[Bundle]:
    """The smallest form of the pools among these steps, and a task of each other one."""
    for step in steps:
        at: TaskPlacement | PoolPlacement = getattr(placement, step.name)
        count, gpus = (at.min_size, at.num_gpus) if isinstance(at, PoolPlacement) else (1, 0.0)
        yield Bundle(step.name, count, {"CPU": at.num_cpus, "GPU": gpus, **at.resources}, at.labels, step.is_pool)


def find_shortage(bundles: list[Bundle], nodes: list[Node]) -> str | None:
    """What is missing, as a sentence; None where the bundles may fit."""
    for selector in _selectors(bundles):
        own = [bundle for bundle in bundles if not selector or dict(bundle.labels) == selector]
        there = [node for node in nodes if matches(node.labels, selector)]
        for key in sorted({key for bundle in own for key in bundle.resources}, key=lambda key: (key != "GPU", key)):
            if shortage := _sum_shortage(key, own, there, selector):
                return shortage
    for bundle in bundles:
        there = [node for node in nodes if matches(node.labels, bundle.labels)]
        if not any(_fits(bundle, node) for node in there):
            takes = ", ".join(f"{share:g} {key}" for key, share in bundle.resources.items() if share)
            return f"{bundle.stage} needs {takes} on one node{_where(bundle.labels)}, and no node has that"
    return None


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether Ray would take a node: values are `a`, `!a`, `in(a, b)` or `!in(a, b)`."""
    for key, condition in selector.items():
        negated, text = condition.startswith("!"), condition.removeprefix("!")
        listed = re.fullmatch(r"in\((.*)\)", text)
        values = {value.strip() for value in listed[1].split(",")} if listed else {text}
        if (labels.get(key) in values) is negated:
            return False
    return True


def _selectors(bundles: Iterable[Bundle]) -> list[dict[str, str]]:
    """No selector, which is the whole cluster, and each that a stage has, once."""
    selectors: list[dict[str, str]] = [{}]
    for bundle in bundles:
        if dict(bundle.labels) not in selectors:
            selectors.append(dict(bundle.labels))
    return selectors


def _sum_shortage(key: str, bundles: list[Bundle], nodes: list[Node], selector: Mapping[str, str]) -> str | None:
    pools = [bundle for bundle in bundles if bundle.is_pool]
    task = max((bundle.resources.get(key, 0) for bundle in bundles if not bundle.is_pool), default=0)
    need = sum(bundle.count * bundle.resources.get(key, 0) for bundle in pools) + task
    have = sum(node.resources.get(key, 0) for node in nodes)
    if need <= have + _EPSILON:
        return None
    shares = [f"{pool.stage} {pool.count} x {pool.resources.get(key, 0):g}" for pool in pools]
    shares += [f"a task {task:g}"] if task and (key not in ("CPU", "GPU") or not pools) else []
    setting, unit = "placement.*.resources", f"of {key}"
    if key in ("CPU", "GPU"):
        setting, unit = f"placement.*.num_{key.lower()}s", f"{key}s"
    stages = "the pools need" if pools else "the tasks need"
    return (
        f"{stages} at least {need:g} {unit} ({', '.join(shares)}){_where(selector)}, "
        f"the {'nodes there have' if selector else 'cluster has'} {have:g}; "
        f"add nodes, lower {setting}, or use --config local"
    )


def _where(selector: Mapping[str, str]) -> str:
    return f" with {', '.join(f'{key}={value}' for key, value in selector.items())}" if selector else ""


def _fits(bundle: Bundle, node: Node) -> bool:
    return all(share <= node.resources.get(key, 0) + _EPSILON for key, share in bundle.resources.items())


def _nodes() -> list[Node]:
    return [Node(node["Resources"], node.get("Labels") or {}) for node in ray.nodes() if node["Alive"]]
