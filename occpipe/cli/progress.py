"""Progress for people: a live bar and the stages on a terminal, plain lines elsewhere; the closing tables."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from collections.abc import Mapping
from threading import Event
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from occpipe.core.types import Status
from occpipe.pipeline.monitoring.run_result import ProgressSnapshot, RunResult
from occpipe.pipeline.monitoring.utilization import Utilization

PLAIN_INTERVAL_S = 10.0
_FIGURE = re.compile(r"\d+%")


def describe(statuses: Counter[str], seconds: float) -> str:
    """`12.3 images/s, 40 cleaned, 55 unchanged, 1 errors`."""
    rate = statuses.total() / seconds if seconds > 0 else 0.0
    counts = ", ".join(f"{statuses[s]} {'errors' if s is Status.ERROR else s}" for s in Status if statuses[s])
    return f"{rate:.1f} images/s" + (f", {counts}" if counts else "")


def describe_reasons(reasons: Counter[str]) -> str:
    """`3 truncated, 1 missing`, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def describe_stages(utilization: Mapping[str, Utilization]) -> str:
    """`load 40.1/s (0 wait), segment 11.2/s (64 wait), ...`: rates of the stages, and the rows before each."""
    return ", ".join(f"{name} {use.images_per_s:.1f}/s ({use.queue} wait)" for name, use in utilization.items())


def stages_table(utilization: Mapping[str, Utilization], *, title: str | None = None) -> Table:
    """A row for each stage. A column without a value in any row is left out."""
    shares = {"at work": "busy", "cores": "cpu", "GPU": "gpu"}
    columns = {
        head: name for head, name in shares.items() if any(getattr(p, name) is not None for p in utilization.values())
    }
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    waiting = ["rows waiting"] if any(use.queue for use in utilization.values()) else []
    for head in ("images/s", "workers at work", *columns, *waiting):
        table.add_column(head, justify="right")
    for stage, use in utilization.items():
        values = [getattr(use, name) for name in columns.values()]
        shown = ["" if value is None else f"{value:.0%}" for value in values]
        shown += [str(use.queue)] * len(waiting)
        table.add_row(stage, f"{use.images_per_s:.1f}", f"{use.at_work:.1f}", *shown)
    return table


class LiveProgress:
    """Call it with each snapshot, inside a `with`."""

    def __init__(self, console: Console, verb: str = "cleaning") -> None:
        self._console = console
        self._first: tuple[float, int] | None = None
        self._last_line = 0.0
        self._limit: str | None = None
        columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console)
        self._task = self._bar.add_task("starting", total=None)
        self._live = Live(self._bar, console=console, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, snapshot: ProgressSnapshot) -> None:
        done = snapshot.statuses.total()
        if self._first is None:
            self._first = (snapshot.seconds, done)
        text = describe(snapshot.statuses, snapshot.seconds)
        if self._console.is_terminal:
            self._bar.update(self._task, total=snapshot.total, completed=done, description=text)
            notes = (describe_reasons(snapshot.reasons), snapshot.limit)
            self._live.update(
                Group(self._bar, stages_table(snapshot.utilization), *(Text(note) for note in notes if note))
            )
        elif time.monotonic() - self._last_line >= PLAIN_INTERVAL_S or done == snapshot.total:
            self._last_line = time.monotonic()
            reasons = f" ({describe_reasons(snapshot.reasons)})" if snapshot.reasons else ""
            self._print(f"{done}/{snapshot.total} {text}{reasons}{self._left(snapshot, done)}")
            if done < snapshot.total and snapshot.stages:
                self._print(f"  {describe_stages(snapshot.utilization)}")
            limit = snapshot.limit and _FIGURE.sub("", snapshot.limit)
            if snapshot.limit and limit != self._limit:  # once, not with every new percentage
                self._limit = limit
                self._print(f"  {snapshot.limit}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _left(self, snapshot: ProgressSnapshot, done: int) -> str:
        seconds, before = self._first or (0.0, 0)
        if done >= snapshot.total or done <= before or snapshot.seconds <= seconds:
            return ""
        left = (snapshot.total - done) * (snapshot.seconds - seconds) / (done - before)
        return f", {left:.0f} s left"


class StopRequest:
    """The effect of Ctrl-C and SIGTERM: the first one stops the run after its begun blocks, the next one at once.

    Before `begin` no block is in work, and the first one ends the run.
    """

    def __init__(self, console: Console) -> None:
        self.event, self._console, self._begun = Event(), console, False

    def begin(self) -> None:
        """Images are in work. Call it once Ray runs, because Ray takes SIGTERM for itself at its start."""
        if not self._begun:
            self._begun = True
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` and shells in the background ignore it
                    signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        if self.event.is_set():
            raise KeyboardInterrupt
        self.event.set()
        self._console.print("finishing what has begun; once more to stop at once", highlight=False)


def result_table(result: RunResult, output: str) -> Table:
    """The closing table: this run beside all published rows."""
    table = Table(title=f"occpipe: {output}", title_justify="left")
    for name, justify in (("status", "left"), ("this run", "right"), ("published", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich wants its literal type
    published = result.manifest["status"]
    for status in Status:
        rows, total = result.statuses[status], published.get(status, 0)
        if rows or total or status is not Status.SCANNED:  # which only a scan has
            table.add_row(status, str(rows), str(total))
    table.add_section()
    table.add_row("images", str(result.statuses.total()), str(result.manifest["images"]))
    return table
