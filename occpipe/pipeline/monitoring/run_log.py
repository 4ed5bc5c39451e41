"""The events of a run as log records: a tick every five seconds, and one for the end of the run.

Their fields are the `extra` of the records, and docs/watching.md lists them. The CLI says where the records go.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Self

from occpipe.pipeline.monitoring.run_result import ProgressSnapshot, RunResult
from occpipe.pipeline.monitoring.stage_statistics import NO_STATISTICS

INTERVAL_S = 5.0
_DIGITS = 3

logger = logging.getLogger(__name__)


class RunLog:
    """Call it with each snapshot, inside a `with`."""

    def __init__(self) -> None:
        self._last: tuple[float, ProgressSnapshot] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            values = snapshot_values(self._last[1]) if self._last else {}
            values["error"] = " ".join(str(error).split()) or type(error).__name__
            logger.error("the run failed", extra={"event": "failed"} | values, exc_info=error)

    def __call__(self, snapshot: ProgressSnapshot) -> None:
        now = time.monotonic()
        if self._last is None or now - self._last[0] >= INTERVAL_S:
            self._last = now, snapshot
            done = snapshot.statuses.total()
            logger.info("%d of %d images", done, snapshot.total, extra={"event": "tick"} | snapshot_values(snapshot))

    def end(self, result: RunResult) -> None:
        """The event for a run that ended well or was stopped; its utilization is that of the whole run."""
        snapshot = result.final or ProgressSnapshot(result.statuses, result.statuses.total(), result.seconds)
        values = snapshot_values(snapshot) | {
            "seconds": round(result.seconds, _DIGITS),
            "stopped": result.stopped,
            "done_before": result.done_before,
            "published": result.manifest["images"],
        }
        logger.info("the run ended", extra={"event": "end"} | values)


def snapshot_values(snapshot: ProgressSnapshot) -> dict[str, Any]:
    """A snapshot as JSON values."""
    done = snapshot.statuses.total()
    return {
        "seconds": round(snapshot.seconds, _DIGITS),
        "done": done,
        "total": snapshot.total,
        "images_per_s": round(done / snapshot.seconds, _DIGITS) if snapshot.seconds else 0.0,
        "status": dict(snapshot.statuses),
        "reasons": dict(snapshot.reasons),
        "stages": {stage: _stage_values(snapshot, stage) for stage in snapshot.utilization},
        "limit": snapshot.limit,
    }


def _stage_values(snapshot: ProgressSnapshot, stage: str) -> dict[str, Any]:
    sums, use = snapshot.stages.get(stage, NO_STATISTICS), snapshot.utilization[stage]
    values = {
        "rows": sums.rows,
        "busy_s": sums.busy_s,
        "waited_s": sums.waited_s,
        "images_per_s": use.images_per_s,
        "at_work": use.at_work,
        "busy": use.busy,
        "queue": use.queue,
        "cpu": use.cpu,
        "gpu": use.gpu,
    }
    return {key: round(value, _DIGITS) if isinstance(value, float) else value for key, value in values.items()}
