"""Progress for people: a live bar on a terminal, a plain line now and then elsewhere; and the closing table."""

from __future__ import annotations

import signal
import time
from collections import Counter
from threading import Event
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from occpipe.summary import Summary, Tick
from occpipe.types import Status

PLAIN_INTERVAL_S = 10.0


def describe(statuses: Counter[str], seconds: float) -> str:
    """`12.3 images/s, 40 cleaned, 55 unchanged, 1 errors`."""
    rate = statuses.total() / seconds if seconds > 0 else 0.0
    counts = ", ".join(f"{statuses[s]} {'errors' if s is Status.ERROR else s}" for s in Status if statuses[s])
    return f"{rate:.1f} images/s" + (f", {counts}" if counts else "")


class LiveProgress:
    """Call it with each tick, inside a `with`."""

    def __init__(self, console: Console, verb: str = "cleaning") -> None:
        self._console = console
        self._first: tuple[float, int] | None = None
        self._last_line = 0.0
        columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._task = self._bar.add_task("starting Ray", total=None)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, tick: Tick) -> None:
        done = tick.statuses.total()
        if self._first is None:
            self._first = (tick.seconds, done)
        text = describe(tick.statuses, tick.seconds)
        if self._console.is_terminal:
            self._bar.update(self._task, total=tick.total, completed=done, description=text)
        elif time.monotonic() - self._last_line >= PLAIN_INTERVAL_S or done == tick.total:
            self._last_line = time.monotonic()
            self._console.print(f"{done}/{tick.total} {text}{self._left(tick, done)}", highlight=False, soft_wrap=True)

    def _left(self, tick: Tick, done: int) -> str:
        seconds, before = self._first or (0.0, 0)
        if done >= tick.total or done <= before or tick.seconds <= seconds:
            return ""
        left = (tick.total - done) * (tick.seconds - seconds) / (done - before)
        return f", {left:.0f} s left"


class StopRequest:
    """What Ctrl-C and SIGTERM do: the first asks the run to finish what it has begun, the next one ends it at once.

    Before `begin` there is nothing yet that would be worth the wait, and the first one ends it.
    """

    def __init__(self, console: Console) -> None:
        self.event, self._console, self._begun = Event(), console, False

    def begin(self) -> None:
        """The images are in work. Called once Ray runs, for Ray takes SIGTERM for itself when it starts."""
        if not self._begun:
            self._begun = True
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        if self.event.is_set():
            raise KeyboardInterrupt
        self.event.set()
        self._console.print("finishing what has begun; once more to stop at once", highlight=False)


def summary_table(summary: Summary, output: str) -> Table:
    """The closing table: this run beside all that is published."""
    table = Table(title=f"occpipe: {output}", title_justify="left")
    for name, justify in (("status", "left"), ("this run", "right"), ("published", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich wants its literal type
    published = summary.manifest["status"]
    for status in Status:
        made, there = summary.statuses[status], published.get(status, 0)
        if made or there or status is not Status.SCANNED:  # which only a scan has
            table.add_row(status, str(made), str(there))
    table.add_section()
    table.add_row("images", str(summary.statuses.total()), str(summary.manifest["images"]))
    return table
