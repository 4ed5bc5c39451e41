"""The monitor of a run, in a thread of its driver: once a second it makes a progress snapshot of the journal's statistics.

A thread, because rows may be minutes apart; it costs the workers nothing. The same thread passes on a request to stop.
Where the journal does not answer, a snapshot has the last statistics.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event, Thread

from occpipe.core.config_placement import Placement
from occpipe.pipeline.monitoring.bottleneck import find_limit
from occpipe.pipeline.monitoring.run_result import ProgressSnapshot, RunCounts
from occpipe.pipeline.monitoring.stage_statistics import Stages
from occpipe.pipeline.monitoring.utilization import utilization_between
from occpipe.pipeline.ray.journal import Journal, JournalHandle
from occpipe.pipeline.ray.log_records import emit_records
from occpipe.pipeline.steps import POOLS, STAGES

POLL_S = 0.5
SNAPSHOT_S = 1.0
SPAN_S = 30.0
"""Span of a snapshot's utilization; a pool's batch may take seconds, so a shorter one would jump."""
WARM_UP_S = 20.0
"""Seconds after the first image of the first pool in which no limit is named, because the stages still fill."""
_ANSWER_S = 10.0
logger = logging.getLogger(__name__)


class Monitor:
    """Makes snapshots of a run over `total` images; `started` is of the monotonic clock, `stages` are those of the run."""

    def __init__(self, counts: RunCounts, started: float, placement: Placement, stages: Sequence[str] = STAGES) -> None:
        self.counts, self.total = counts, 0
        self._started, self._placement, self._stages = started, placement, stages
        self._first_pool = next((stage for stage in stages if stage in POOLS), stages[0])
        self._moments: deque[tuple[float, Stages]] = deque()  # of the last SPAN_S
        self._begin: tuple[float, Stages] | None = None  # the moment before the first batch of the first pool

    def snapshot(
        self, stages: Stages, free: Mapping[str, float], now: float, *, final: bool = False
    ) -> ProgressSnapshot:
        """Progress at the time `now`, with these statistics and Ray's `free` resources; `final`: over the whole run."""
        statuses, reasons = self.counts.copy()
        if self._begin is None and self._first_pool in stages:
            self._begin = self._moments[-1] if self._moments else (now, stages)
        while len(self._moments) > 1 and self._moments[1][0] <= now - SPAN_S:
            self._moments.popleft()
        self._moments.append((now, stages))
        since, before = self._begin if final and self._begin else self._moments[0]
        utilization = utilization_between(before, stages, now - since, self.total, self._stages)
        is_warm = self._begin is not None and now - self._begin[0] >= WARM_UP_S
        limit = find_limit(utilization, self._placement, free) if is_warm else None
        return ProgressSnapshot(statuses, self.total, now - self._started, reasons, stages, utilization, limit)

    def report(self, on_progress: Callable[[ProgressSnapshot], None], take: Callable[[], ProgressSnapshot]) -> None:
        """Take a snapshot and pass it on. An error of `on_progress` ends the reports, and not the run."""
        if self.counts.progress_error is None:
            try:
                on_progress(take())
            except Exception as error:  # noqa: BLE001 - `run` raises it, once the rows are published
                logger.warning("progress is not reported any more: %s", error)
                self.counts.progress_error = error


@contextlib.contextmanager
def monitored(
    monitor: Monitor, journal: JournalHandle, output: str, stop: Event, on_progress: Callable[[ProgressSnapshot], None]
) -> Iterator[None]:
    """Call `on_progress` now, then every second from a thread, and once at the end; stop the journal once `stop` is set.

    A later error of `on_progress` is kept in `monitor.counts`.
    """
    import ray
    from ray.exceptions import RayError

    from occpipe.pipeline.monitoring.metrics import Metrics

    metrics, ended = Metrics(output), Event()
    latest: tuple[Stages, Mapping[str, float]] = {}, {}

    def take(*, final: bool = False) -> ProgressSnapshot:
        nonlocal latest
        with contextlib.suppress(RayError):  # a node that is lost, a journal that is busy
            latest = journal.call_within(_ANSWER_S, Journal.statistics), ray.available_resources()
            emit_records(journal.call_within(_ANSWER_S, Journal.take_records))
        snapshot = monitor.snapshot(*latest, time.monotonic(), final=final)
        with contextlib.suppress(Exception):  # Prometheus alone misses metrics that Ray cannot take
            metrics.publish(snapshot)
        return snapshot

    def take_final() -> ProgressSnapshot:
        monitor.counts.final = take(final=True)
        return monitor.counts.final

    def repeat() -> None:
        is_stopped, at = False, time.monotonic()
        while not ended.wait(POLL_S):
            if stop.is_set() and not is_stopped:
                journal.send(Journal.stop)
                is_stopped = True
            if time.monotonic() - at >= SNAPSHOT_S:
                at = time.monotonic()
                monitor.report(on_progress, take)

    on_progress(monitor.snapshot({}, {}, time.monotonic()))
    thread = Thread(target=repeat, name="occpipe-monitor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    monitor.report(on_progress, take_final)
