"""The utilization of the stages over a span of a run, from two moments of their statistics. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from occpipe.pipeline.monitoring.stage_statistics import NO_STATISTICS, Stages
from occpipe.pipeline.steps import POOLS, STAGES


@dataclass(frozen=True, slots=True)
class Utilization:
    """A stage over a span of a run.

    `at_work` is the mean number of workers at work. `busy` is the share of its time that an actor of a pool has work. It is
    None for tasks, which exist only for their work, and where no batch ended. `queue` are the rows that wait for the stage
    or are in it at the span's end. `cpu` and `gpu` are shares in use, None where they are not known.
    """

    images_per_s: float
    at_work: float
    busy: float | None
    queue: int
    cpu: float | None
    gpu: float | None


def utilization_between(
    before: Stages, now: Stages, seconds: float, total: int, stages: Sequence[str] = STAGES
) -> dict[str, Utilization]:
    """The utilization of each stage, in order, between two moments that are `seconds` apart; the run has `total` images."""
    by_stage, arrived = {}, total
    for stage in stages:
        own = now.get(stage, NO_STATISTICS)
        span = own.since(before.get(stage, NO_STATISTICS))
        known_s = span.busy_s + span.waited_s
        by_stage[stage] = Utilization(
            images_per_s=span.rows / seconds if seconds > 0 else 0.0,
            at_work=span.busy_s / seconds if seconds > 0 else 0.0,
            busy=span.busy_s / known_s if stage in POOLS and known_s else None,
            queue=max(0, arrived - own.rows),
            cpu=span.cpu_s / span.known_cpu_s if span.known_cpu_s else None,
            gpu=span.gpu_s / span.known_gpu_s if span.known_gpu_s else None,
        )
        arrived = own.rows
    return by_stage
