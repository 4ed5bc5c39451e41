"""A worker of a run without Ray: a process that takes chunks of the manifest through all stages; see `occpipe.crew`.

The next chunk is read and the last one written while one is in work, so that storage costs no time. What it says is
`Ready` once, then for each chunk `At` for each batch of a stage, and `Done` with the thin rows or `Dropped`; `Failed` is
its last word. The job, the chunks, `Stop` and at the end None come on a socket, as pickles of the process that started it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, NamedTuple

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


class Stop(NamedTuple):
    """What was not begun is to be dropped; to have been fetched is no beginning."""


class At(NamedTuple):
    """A stage begins work on a batch of a chunk; none: the chunk waits for the one before it."""

    number: int
    stage: str | None


class Dropped(NamedTuple):
    """A chunk was not begun."""

    number: int


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


class OverError(Exception):
    """Nothing is left to be said: the parent is gone, as its socket says and no store could, or knows what is wrong."""


class Parent:
    """The process at the other end of a socket, which several threads tell things."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._telling = connection, Lock()

    def hear(self) -> Any:
        """What it says next."""
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise OverError from error

    def tell(self, word: NamedTuple) -> None:
        """Tell it something."""
        try:
            with self._telling:
                self._connection.send(word)
        except OSError as error:
            raise OverError from error

    @contextlib.contextmanager
    def told_of_failure(self) -> Iterator[None]:
        """Tell it at once of what goes wrong, for the thread that could look may be waiting for a chunk."""
        try:
            yield
        except OverError:
            raise
        except Exception as error:
            self.tell(Failed(f"{type(error).__name__}: {first_line(error)}"))
            raise OverError from error


def serve(parent: Parent) -> None:
    """Work on what comes until there is no more."""
    chain = Chain(parent.hear())
    fetched: SimpleQueue[Chunk | None] = SimpleQueue()  # two at most, for no more are in a worker's hand
    stopping = Event()

    def read() -> None:
        while (word := parent.hear()) is not None:
            if isinstance(word, Stop):
                stopping.set()
                continue
            parent.tell(At(word.number, "fetch"))
            chunk = word.after("fetch", chain.fetch)
            parent.tell(At(chunk.number, None))
            fetched.put(chunk)

    def read_on() -> None:
        with contextlib.suppress(OverError), parent.told_of_failure():
            read()
        fetched.put(None)

    def write(chunk: Chunk) -> None:
        with parent.told_of_failure():
            parent.tell(At(chunk.number, "sink"))
            parent.tell(Done(chunk.after("sink", chain.sink)))

    parent.tell(Ready())
    Thread(target=read_on, daemon=True).start()  # at a failure it may listen for a chunk that never comes
    with ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        while (chunk := fetched.get()) is not None:
            if stopping.is_set():
                parent.tell(Dropped(chunk.number))
                continue
            for name, stage, size in chain.between:
                begin = partial(parent.tell, At(chunk.number, name))
                chunk = chunk.after(name, partial(_in_batches, stage, size, begin))
            if written:
                written.result()
            written = writer.submit(write, chunk)
        if written:
            written.result()


def _in_batches(
    stage: Callable[[pa.Table], pa.Table], size: int, begin: Callable[[], None], rows: pa.Table
) -> pa.Table:
    done = []
    for start in range(0, len(rows), size):
        begin()  # each time, for a slow model may need the patience of a run for every batch
        done.append(stage(rows.slice(start, size)))
    return pa.concat_tables(done)


def main() -> None:
    """Serve the process that holds the other end of the socket; its end is ours."""
    parent = Parent(Connection(int(sys.argv[1])))  # it is closed with the process: until then a thread may listen
    with contextlib.suppress(OverError), parent.told_of_failure():
        serve(parent)
