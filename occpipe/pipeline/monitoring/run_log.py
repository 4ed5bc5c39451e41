"""A run as JSON lines, for programs that watch it: a line a tick, and one for its end. docs/watching.md has the fields.

A log that can no longer be written (a full disk) says so once and is given up; the run goes on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console

from occpipe.core.errors import StorageError
from occpipe.core.streams import let_go
from occpipe.pipeline.monitoring.run_result import Summary, Tick
from occpipe.pipeline.monitoring.stage_statistics import NONE

VERSION = 1
INTERVAL_S = 5.0
_DIGITS = 3


class RunLog:
    """Call it with each tick, inside a `with`; `path` is a file to append to, `-` standard output, None no log.

    Raises StorageError where the file cannot be opened.
    """

    def __init__(self, path: str | None, console: Console) -> None:
        self._path, self._console = path, console
        self._file: TextIO | None = None
        self._last: tuple[float, Tick] | None = None
        try:
            if path is not None:
                self._file = sys.stdout if path == "-" else Path(path).expanduser().open("a", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            said = " ".join(str(error).split()) or type(error).__name__
            self._write("failed", self._last and tick_values(self._last[1]), error=said)
        if self._file is not None and self._path != "-":
            self._file.close()

    def __call__(self, tick: Tick) -> None:
        now = time.monotonic()
        if self._last is None or now - self._last[0] >= INTERVAL_S:
            self._last = now, tick
            self._write("tick", tick_values(tick))

    def end(self, summary: Summary) -> None:
        """The line for a run that ended well or was stopped; its paces are those of the whole run."""
        tick = summary.over_all or Tick(summary.statuses, summary.statuses.total(), summary.seconds)
        values = tick_values(tick) | {"seconds": round(summary.seconds, _DIGITS)}
        published = summary.manifest["images"]
        self._write("end", values, stopped=summary.stopped, done_before=summary.done_before, published=published)

    def _write(self, event: str, values: Mapping[str, Any] | None, **more: Any) -> None:
        if self._file is None:
            return
        head = {"version": VERSION, "event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        try:
            self._file.write(json.dumps(head | dict(values or {}) | more) + "\n")
            self._file.flush()
        except OSError as error:
            if self._file is sys.stdout:
                let_go(sys.stdout)  # else the interpreter fails at its end on what is still held
            self._file = None
            self._console.print(f"{self._path}: {error}; no more of this log", highlight=False, markup=False)


def tick_values(tick: Tick) -> dict[str, Any]:
    """A tick as JSON values."""
    done = tick.statuses.total()
    return {
        "seconds": round(tick.seconds, _DIGITS),
        "done": done,
        "total": tick.total,
        "images_per_s": round(done / tick.seconds, _DIGITS) if tick.seconds else 0.0,
        "status": dict(tick.statuses),
        "reasons": dict(tick.reasons),
        "stages": {stage: _stage_values(tick, stage) for stage in tick.paces},
        "limit": tick.limit,
    }


def _stage_values(tick: Tick, stage: str) -> dict[str, Any]:
    sums, pace = tick.stages.get(stage, NONE), tick.paces[stage]
    values = {
        "rows": sums.rows,
        "busy_s": sums.busy_s,
        "waited_s": sums.waited_s,
        "images_per_s": pace.images_per_s,
        "at_work": pace.at_work,
        "busy": pace.busy,
        "queue": pace.queue,
        "cpu": pace.cpu,
        "gpu": pace.gpu,
    }
    return {key: round(value, _DIGITS) if isinstance(value, float) else value for key, value in values.items()}
