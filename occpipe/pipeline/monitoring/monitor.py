"""Watching a run from its driver: once a second the journal is asked what the stages did, and a tick is made of it.

That happens in a thread of its own, because rows may be minutes apart, and costs the workers nothing. The same thread
passes on the wish to stop. Where the journal does not answer, a tick has the last figures that it gave.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event, Thread

from occpipe.core.config_placement import Placement
from occpipe.pipeline.monitoring.bottleneck import find_limit
from occpipe.pipeline.monitoring.run_result import Made, Tick
from occpipe.pipeline.monitoring.stage_statistics import Stages, paces
from occpipe.pipeline.ray.journal import JournalHandle
from occpipe.pipeline.steps import POOLS, STAGES

POLL_S = 0.5
TICK_S = 1.0
RECENT_S = 30.0
"""Span that a tick's paces are read off; a pool's batch may take seconds, so a shorter one would jump."""
TELLING_S = 20.0
"""Seconds from the first image of the first pool on after which it is said what limits a run: before, it still fills."""
_ANSWER_S = 10.0


class Watch:
    """Makes ticks of a run that began at `started` (of the monotonic clock) and passes `stages`; `total` images so far."""

    def __init__(self, made: Made, started: float, placement: Placement, stages: Sequence[str] = STAGES) -> None:
        self.made, self.total = made, 0
        self._started, self._placement, self._stages = started, placement, stages
        self._first_pool = next(stage for stage in stages if stage in POOLS)
        self._moments: deque[tuple[float, Stages]] = deque()  # of the last RECENT_S
        self._flowing: tuple[float, Stages] | None = None  # the moment before the first pool had done anything

    def tick(self, stages: Stages, free: Mapping[str, float], now: float, *, over_all: bool = False) -> Tick:
        """Progress as of `now`, where the stages have done `stages` and Ray has `free` left."""
        statuses, reasons = self.made.counts()
        if self._flowing is None and self._first_pool in stages:
            self._flowing = self._moments[-1] if self._moments else (now, stages)
        while len(self._moments) > 1 and self._moments[1][0] <= now - RECENT_S:
            self._moments.popleft()
        self._moments.append((now, stages))
        since, before = self._flowing if over_all and self._flowing else self._moments[0]
        pace = paces(before, stages, now - since, self.total, self._stages)
        flowing_s = now - self._flowing[0] if self._flowing else 0.0
        limit = find_limit(pace, self._placement, free) if flowing_s >= TELLING_S else None
        return Tick(statuses, self.total, now - self._started, reasons, stages, pace, limit)

    def tell(self, on_progress: Callable[[Tick], None], look: Callable[[], Tick]) -> None:
        """Tell `on_progress` what a look gives, until that fails: rows are worth more than watching them."""
        if self.made.unwatched is None:
            try:
                on_progress(look())
            except Exception as error:  # noqa: BLE001 - `run` raises it, once the rows are published
                self.made.unwatched = error


@contextlib.contextmanager
def watching(
    watch: Watch, journal: JournalHandle, output: str, stop: Event, on_progress: Callable[[Tick], None]
) -> Iterator[None]:
    """Call `on_progress` now, then every second from a thread, and once at the end; tell the journal once `stop` is set.

    What `on_progress` raises after the first time ends the telling, and is kept in `watch.made`.
    """
    import ray
    from ray.exceptions import RayError

    from occpipe.pipeline.monitoring.metrics import Metrics

    metrics, ended = Metrics(output), Event()
    heard: tuple[Stages, Mapping[str, float]] = {}, {}

    def look(*, over_all: bool = False) -> Tick:
        nonlocal heard
        with contextlib.suppress(RayError):  # a node that is lost, a journal that is busy
            heard = ray.get(journal.actor.figures.remote(), timeout=_ANSWER_S), ray.available_resources()
        tick = watch.tick(*heard, time.monotonic(), over_all=over_all)
        with contextlib.suppress(Exception):  # metrics that Ray cannot take are missed by Prometheus alone
            metrics.publish(tick)
        return tick

    def last() -> Tick:
        watch.made.over_all = look(over_all=True)
        return watch.made.over_all

    def go_on() -> None:
        told, at = False, time.monotonic()
        while not ended.wait(POLL_S):
            if stop.is_set() and not told:
                journal.tell("stop")
                told = True
            if time.monotonic() - at >= TICK_S:
                at = time.monotonic()
                watch.tell(on_progress, look)

    on_progress(watch.tick({}, {}, time.monotonic()))
    thread = Thread(target=go_on, name="occpipe-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    watch.tell(on_progress, last)
