"""A worker of a run without Ray: a process that takes chunks of the manifest through all stages; see `occpipe.crew`.

The next chunk is read and the last one written while one is in work, so that storage costs no time. What it says is
`Ready` once, then for each chunk `At` for each stage that begins and `Done` with the thin rows; `Failed` is its last word.
The job and the chunks come on a socket, as pickles of the process that started this one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from threading import Lock
from typing import NamedTuple

import pyarrow as pa

from occpipe.config import Config
from occpipe.errors import first_line
from occpipe.stages.fetch import Fetch
from occpipe.stages.inpaint import InpaintStage
from occpipe.stages.relate import Relate
from occpipe.stages.segment import SegmentStage
from occpipe.stages.sink import Sink

START = "from occpipe.worker import main; main()"
"""What Python is told to run, with the descriptor of the socket."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is told before its first chunk."""

    config: Config
    root: str
    sink: Sink


class Chunk(NamedTuple):
    """Rows under a number, and the seconds that stages have spent on them so far, by name."""

    number: int
    rows: pa.Table
    spent: tuple[tuple[str, float], ...] = ()

    def after(self, name: str, stage: Callable[[pa.Table], pa.Table]) -> Chunk:
        """What a stage makes of it."""
        begun = time.monotonic()
        rows = stage(self.rows)
        return Chunk(self.number, rows, (*self.spent, (name, time.monotonic() - begun)))


class Ready(NamedTuple):
    """The models are loaded."""


class At(NamedTuple):
    """A stage begins work on a chunk."""

    number: int
    stage: str


class Done(NamedTuple):
    """A chunk is written; its rows are thin."""

    chunk: Chunk


class Failed(NamedTuple):
    """Something is wrong with more than a row: an output that cannot be written, weights that cannot be loaded."""

    error: str


class Chain:
    """All stages in one process."""

    def __init__(self, job: Job) -> None:
        at = job.config.placement
        self.fetch = Fetch(job.root, job.config.corpus, at.fetch.threads)
        self.sink = job.sink
        self.between: tuple[tuple[str, Callable[[pa.Table], pa.Table], int], ...] = (
            ("segment", SegmentStage(job.config), at.segment.batch_size),
            ("relate", Relate(job.config), at.relate.batch_size),
        )
        if job.sink.images is not None:  # it is no scan
            self.between += (("inpaint", InpaintStage(job.config), at.inpaint.batch_size),)


def serve(parent: Connection) -> None:
    """Work on what comes until there is no more."""
    chain, saying = Chain(parent.recv()), Lock()

    def say(word: NamedTuple) -> None:
        with saying:
            parent.send(word)

    def read() -> Chunk | None:
        chunk: Chunk | None = parent.recv()
        return chunk and chunk.after("fetch", chain.fetch)

    def write(chunk: Chunk) -> None:
        say(At(chunk.number, "sink"))
        say(Done(chunk.after("sink", chain.sink)))

    say(Ready())
    reader, writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    try:
        written: Future[None] | None = None
        reading = reader.submit(read)
        while (chunk := reading.result()) is not None:
            reading = reader.submit(read)
            for name, stage, size in chain.between:
                say(At(chunk.number, name))
                chunk = chunk.after(name, partial(_in_batches, stage, size))
            if written:
                written.result()
            written = writer.submit(write, chunk)
        if written:
            written.result()
    finally:
        reader.shutdown(wait=False)  # it may listen for a chunk that never comes
        writer.shutdown()


def _in_batches(stage: Callable[[pa.Table], pa.Table], size: int, rows: pa.Table) -> pa.Table:
    return pa.concat_tables([stage(rows.slice(start, size)) for start in range(0, len(rows), size)])


def main() -> None:
    """Serve the process that holds the other end of the socket; its end is ours."""
    with Connection(int(sys.argv[1])) as parent:
        try:
            serve(parent)
        except (EOFError, ConnectionError):
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the run, and its owner must hear of it
            parent.send(Failed(f"{type(error).__name__}: {first_line(error)}"))
