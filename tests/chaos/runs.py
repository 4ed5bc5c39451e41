"""One run of `occpipe clean` under test: started, watched, struck, and its output counted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from occpipe.dataset.layout import FIRST, METADATA
from occpipe.dataset.parquet import read_footer, read_parquet
from occpipe.dataset.shards import list_parts, list_shards
from occpipe.io.storage import open_store
from tests.chaos.corpus import SETTINGS

HOOKS = Path(__file__).parent / "hooks"
TIMEOUT_S = 400.0
MORE_SETTINGS = "OCCPIPE_CHAOS_SETTINGS"
"""Of the environment: overrides for all runs, with spaces between them."""


def hooked(chaos: Mapping[str, Any] | None) -> dict[str, str]:
    """The environment in which Python loads the hooks, which are told what to do."""
    told = {"OCCPIPE_CHAOS": json.dumps(chaos)} if chaos else {}
    return {"PYTHONPATH": os.pathsep.join((str(HOOKS), str(Path.cwd()))), **told}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is published after a fault and the runs that follow it; `note` is what the runs said.

    `injected` is how often the fault struck; of the `written` images `whole` ones have the bytes that their rows promise.
    """

    injected: int
    expected: int
    published: int
    duplicates: int
    lost: int
    written: int
    whole: int
    errors: int
    errors_expected: int
    note: str

    @property
    def survived(self) -> bool:
        """Whether each image stands there once, with as many errors as there should be, and each file is whole."""
        counted = self.published == self.expected and self.errors == self.errors_expected
        return counted and not (self.duplicates or self.lost) and self.whole == self.written


class Run:
    """A process of `occpipe clean`, or of another `verb`, with everything that it starts."""

    def __init__(
        self,
        source: str,
        output: str,
        *,
        verb: str = "clean",
        chaos: Mapping[str, Any] | None = None,
        settings: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        command = [sys.executable, "-m", "occpipe", verb, source, output, *options]
        for setting in (*SETTINGS, *settings, *os.environ.get(MORE_SETTINGS, "").split()):
            command += ["--set", setting]
        environment = {**os.environ, **hooked(chaos)}
        self.store = open_store(output)
        self.process = psutil.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, rows: int) -> None:
        """Wait until so many rows are committed; raises RuntimeError where the run ended before."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            if self.rows_committed() >= rows:
                return
            if ended:
                raise RuntimeError(f"the run ended before it had made {rows} rows: nothing was struck")
            time.sleep(0.2)
        self.kill()
        raise RuntimeError(f"no {rows} rows after {TIMEOUT_S:.0f} s")

    def rows_committed(self) -> int:
        """Rows in parts and in published files, some of them perhaps twice for a moment."""
        keys = [part for parts in list_parts(self.store, FIRST).values() for part in parts]
        keys += [FIRST.rows(shard) for shard in list_shards(self.store, METADATA)]
        rows = 0
        for key in keys:
            with suppress(FileNotFoundError):  # a part that was committed meanwhile
                rows += read_footer(self.store, key).num_rows
        return rows

    def kill(self) -> None:
        """Kill the driver as the kernel would, and wait until what it had started is gone with it."""
        children = []
        with suppress(psutil.NoSuchProcess):  # it has ended by itself
            children = self.process.children(recursive=True)
            self.process.kill()
        self.process.communicate()
        _, alive = psutil.wait_procs(children, timeout=30)
        for process in alive:
            process.kill()

    def finish(self) -> tuple[int, str]:
        """Wait for the end; exit code and the last line of standard error."""
        try:
            _, errors = self.process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        lines = [line for line in errors.splitlines() if line.strip()]
        return self.process.returncode, lines[-1] if lines else ""


def count(output: str, expected: int, *, injected: int, note: str = "", errors: int = 0) -> Outcome:
    """Hold what is published against what was put in; an image is whole where its bytes have the hash of its row."""
    store = open_store(output)
    names: Counter[str] = Counter()
    failed = written = whole = 0
    for shard in list_shards(store, METADATA):
        for row in read_parquet(store, FIRST.rows(shard), ("uri", "status", "output", "output_sha256")).to_pylist():
            names[row["uri"]] += 1
            failed += row["status"] == "error"
            if row["output"]:
                written += 1
                whole += hashlib.sha256(store.read(row["output"])).hexdigest() == row["output_sha256"]
    return Outcome(
        injected,
        expected,
        names.total(),
        names.total() - len(names),
        expected - len(names),
        written,
        whole,
        failed,
        errors,
        note,
    )
