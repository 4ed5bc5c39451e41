"""A run as JSON lines, for programs that watch it: a line a snapshot, and one for its end. docs/watching.md has the fields.

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
from occpipe.core.streams import discard
from occpipe.pipeline.monitoring.run_result import ProgressSnapshot, RunResult
from occpipe.pipeline.monitoring.stage_statistics import NO_STATISTICS

VERSION = 1
INTERVAL_S = 5.0
_DIGITS = 3


class RunLog:
    """Call it with each snapshot, inside a `with`; `path` is a file to append to, `-` standard output, None no log.

    Raises StorageError where the file cannot be opened.
    """

    def __init__(self, path: str | None, console: Console) -> None:
        self._path, self._console = path, console
        self._file: TextIO | None = None
        self._last: tuple[float, ProgressSnapshot] | None = None
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
            self._write("failed", self._last and snapshot_values(self._last[1]), error=said)
        if self._file is not None and self._path != "-":
            self._file.close()

    def __call__(self, snapshot: ProgressSnapshot) -> None:
        now = time.monotonic()
        if self._last is None or now - self._last[0] >= INTERVAL_S:
            self._last = now, snapshot
            self._write("tick", snapshot_values(snapshot))

    def end(self, summary: RunResult) -> None:
        """The line for a run that ended well or was stopped; its utilization are those of the whole run."""
        snapshot = summary.final or ProgressSnapshot(summary.statuses, summary.statuses.total(), summary.seconds)
        values = snapshot_values(snapshot) | {"seconds": round(summary.seconds, _DIGITS)}
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
                discard(sys.stdout)  # else the interpreter fails at its end on what is still held
            self._file = None
            self._console.print(f"{self._path}: {error}; no more of this log", highlight=False, markup=False)


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
