"""A worker for `test_crew.py`, as `occpipe.worker` is but for its models: what an image's name says happens to it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow as pa

from occpipe import worker
from occpipe.rows import Rows
from occpipe.schemas import PUBLISHED
from occpipe.types import Status

AFTER = ("relate", "inpaint")


class Stage:
    """Ends the process at `poison`, once at `unlucky`, and cannot work at `broken`; all else is unchanged, in time."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "segment")
        for index in rows.open():
            name = rows.value("uri", index)
            with (self.marks / "seen").open("a") as seen:
                seen.write(f"{os.getpid()} {name}\n")
            if name.startswith("broken"):
                raise OSError(28, "No space left on device")
            unlucky = name.startswith("unlucky") and not (self.marks / name).exists()
            if unlucky:
                (self.marks / name).touch()
            if unlucky or name.startswith("poison"):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.1 if name.startswith("slow") else 0)
            rows.finish(index, Status.UNCHANGED)
        known = {*batch.column_names, "status", "reason", "error"}
        missing = {name: rows.nulls() for name in PUBLISHED.names if name not in known}
        return rows.table(data=[b"bytes"] * len(batch), **missing | {"config": ["c"] * len(batch)})


def fetch(batch: pa.Table) -> pa.Table:
    """Reads nothing, and ends the process at `unreadable`."""
    rows = Rows(batch, "fetch")
    if any(rows.value("uri", index).startswith("unreadable") for index in rows.open()):
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


class Chain:
    """The fake stage, and others that do nothing, between a fetch that reads nothing and the real sink."""

    def __init__(self, job: worker.Job) -> None:
        self.fetch, self.sink = fetch, job.sink
        self.between = (("segment", Stage(Path(job.root)), 2), *((name, lambda rows: rows, 64) for name in AFTER))


def main() -> None:
    """Serve with the fake chain."""
    worker.Chain = Chain  # type: ignore[assignment, misc]
    worker.main()
