"""Prometheus metrics of a run, by way of Ray: each node's agent serves them, with `ray_` before each name.

The driver sets them once a second, so they cost the workers nothing. `cluster/grafana-dashboard.json` draws them.
Counters begin at 0 with each run. The tag `output` is the job's name, so two runs on one cluster stay apart.
"""

from __future__ import annotations

from ray.util.metrics import Counter as RayCounter
from ray.util.metrics import Gauge

from occpipe.pipeline.monitoring.run_result import ProgressSnapshot
from occpipe.pipeline.ray.connection import job_name

_RUN = ("output",)
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "occpipe_images_total": ("Rows that are written, by status.", ("status",)),
    "occpipe_closed_images_total": ("Rows that ended with a reason (errors and skipped images).", ("reason",)),
    "occpipe_stage_rows_total": ("Rows that a stage has done.", ("stage",)),
    "occpipe_stage_busy_seconds_total": ("Seconds that workers of a stage had work.", ("stage",)),
    "occpipe_stage_waiting_seconds_total": ("Seconds that actors of a pool waited for work.", ("stage",)),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "occpipe_images_to_do": ("Images that the run has to do, of those that are listed so far.", ()),
    "occpipe_stage_queue": ("Rows that wait for a stage or are in it.", ("stage",)),
    "occpipe_stage_cpu_use": ("Share of the cores of a pool's nodes in use, 0 to 1.", ("stage",)),
    "occpipe_stage_gpu_use": ("Share of its time that a pool's GPU computes, 0 to 1; absent without one.", ("stage",)),
}


class Metrics:
    """The metrics of a run with this output."""

    def __init__(self, output: str) -> None:
        self._tags = {"output": job_name(output)}
        self._counters = {name: RayCounter(name, text, (*_RUN, *tags)) for name, (text, tags) in COUNTERS.items()}
        self._gauges = {name: Gauge(name, text, (*_RUN, *tags)) for name, (text, tags) in GAUGES.items()}
        self._published: dict[tuple[str, str], float] = {}

    def publish(self, snapshot: ProgressSnapshot) -> None:
        """Set them to the values of a snapshot."""
        for name, value, tags in values_of(snapshot):
            if name in self._gauges:
                self._gauges[name].set(value, self._tags | tags)
                continue
            key = name, "".join(tags.values())
            if (more := value - self._published.get(key, 0.0)) > 0:
                self._counters[name].inc(more, self._tags | tags)
                self._published[key] = value


def values_of(snapshot: ProgressSnapshot) -> list[tuple[str, float, dict[str, str]]]:
    """Name, value and tags of each metric of a snapshot; counters since the run began, gauges now."""
    values: list[tuple[str, float, dict[str, str]]] = [("occpipe_images_to_do", snapshot.total, {})]
    values += [("occpipe_images_total", count, {"status": status}) for status, count in snapshot.statuses.items()]
    values += [("occpipe_closed_images_total", count, {"reason": reason}) for reason, count in snapshot.reasons.items()]
    for stage, sums in snapshot.stages.items():
        tags = {"stage": stage}
        values.append(("occpipe_stage_rows_total", sums.rows, tags))
        values.append(("occpipe_stage_busy_seconds_total", sums.busy_s, tags))
        values.append(("occpipe_stage_waiting_seconds_total", sums.waited_s, tags))
    for stage, use in snapshot.utilization.items():
        shown = {"queue": float(use.queue), "cpu_use": use.cpu, "gpu_use": use.gpu}
        values += [
            (f"occpipe_stage_{name}", value, {"stage": stage}) for name, value in shown.items() if value is not None
        ]
    return values
