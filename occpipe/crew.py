"""A run without Ray, on the cores of this machine: for corpora on which Ray's start would be most of the time.

One process for each core, up to four of them, each with all stages; more cores are shared between them. A corpus is dealt
out in chunks, large ones first, so that all processes end at the same time. A process that dies costs nothing but time: its
rows are done again one by one, and a row that was alone in work at its second and third death ends as an error row
(`crashed`), as with Ray. Memory does not grow with the corpus: two chunks at most wait in a process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from threading import Event

import pyarrow as pa

from occpipe.config import Config, PoolPlacement
from occpipe.errors import RunError
from occpipe.figures import BatchDone, StageFigures, Tally
from occpipe.gauges import cores
from occpipe.images import ImageError, ImageReason
from occpipe.journal import MAX_DEATHS
from occpipe.placing import crew_on
from occpipe.rows import Rows
from occpipe.stages.sink import Sink
from occpipe.worker import START, At, Chunk, Done, Dropped, Failed, Job, Ready, Stop

MOST_ROWS = 64
UNKNOWN_BYTES = 4 << 20
"""What a photo counts for whose size no listing has told: a JPEG of 12 MP has some 3 MB."""
_IN_HAND = 2
_END_S = 10.0


class _Worker:
    """A process with its end of a socket, and the chunks that it has, with the stage that each is at."""

    def __init__(self, job: Job, threads: int) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this Python and our own module
                [sys.executable, "-P", "-c", START, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": _own_path(), "OMP_NUM_THREADS": str(threads)},
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                process_group=0,  # Ctrl-C is for its parent, which decides
            )
        self.ready, self.chunks, self.at = False, dict[int, pa.Table](), dict[int, str | None]()
        self._tell(job)

    def give(self, chunk: Chunk) -> None:
        self.chunks[chunk.number] = chunk.rows
        self._tell(chunk)

    def drop(self) -> None:
        """Have it drop what it has not begun; it says of each chunk what became of it."""
        self._tell(Stop())

    def forget(self, number: int) -> None:
        """A chunk is not in its hand any more."""
        del self.chunks[number], self.at[number]

    def last_line(self) -> str:
        """What it wrote last, for the one who must find out why it died."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with {self._process.wait()}"

    def end(self, *, at_once: bool) -> None:
        """Let it end, or end it."""
        self._tell(None)
        if at_once:
            self._process.kill()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.connection.close()
        self._log.close()

    def _tell(self, word: Job | Chunk | Stop | None) -> None:
        with contextlib.suppress(OSError):  # it has died already, which is heard when it is listened to
            self.connection.send(word)


class Crew:
    """The processes of a run, and the rows that are still to be dealt out; at `stop` what is not begun is dropped."""

    def __init__(self, config: Config, root: str, sink: Sink, pending: int, stop: Event | None = None) -> None:
        self._count, self._threads = crew_on(cores(), pending)
        self._job = Job(_placed(config, self._threads), root, sink)
        self._most_bytes, self._left, self._stop = config.ray.block_mb << 20, pending, stop or Event()
        self._deaths: Counter[int] = Counter()
        self._suspects: deque[pa.Table] = deque()
        self._alone: set[int] = set()
        self._patience_s = config.ray.no_progress_timeout_s
        self._number, self._dealt, self._stopped = 0, False, False
        self._workers: list[_Worker] = []
        self._tally = Tally()

    def figures(self) -> dict[str, StageFigures]:
        """What the stages did so far, of the chunks that are done."""
        return self._tally.sums()

    def rows(self, manifest: Iterable[pa.Table]) -> Generator[pa.Table, None, None]:
        """The thin rows of a manifest as they are written. Raises RunError where a worker cannot do its work."""
        chunks = self._chunks(manifest)
        whole = False
        try:
            self._workers = [_Worker(self._job, self._threads) for _ in range(self._count)]
            while True:
                if self._stop.is_set() and not self._stopped:
                    self._stopped = True
                    for worker in self._workers:
                        worker.drop()
                for worker in self._workers:
                    self._deal(worker, chunks)
                nothing_left = self._stop.is_set() or (self._dealt and not self._suspects)
                if nothing_left and not any(worker.chunks for worker in self._workers):
                    break
                heard = wait([worker.connection for worker in self._workers], self._patience_s)
                if not heard:
                    raise RunError(f"no batch of any stage ended within {self._patience_s} s")
                for connection in heard:
                    (worker,) = (one for one in self._workers if one.connection is connection)
                    yield from self._hear(worker)
            whole = True
        finally:
            for worker in self._workers:
                worker.end(at_once=not (whole and worker.ready))

    def _hear(self, worker: _Worker) -> Iterator[pa.Table]:
        try:
            word = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        match word:
            case Ready():
                worker.ready = True
            case At(number, stage):
                worker.at[number] = stage
            case Done(chunk):
                worker.forget(chunk.number)
                self._alone.discard(chunk.number)
                for stage, seconds in chunk.spent:
                    self._tally.add(BatchDone(stage, chunk.number, len(chunk.rows), seconds))
                yield chunk.rows
            case Dropped(number):
                worker.forget(number)
            case Failed(error):
                raise RunError(f"a worker failed: {error}")

    def _bury(self, worker: _Worker) -> None:
        """Take over from a worker that died: what it had begun is suspect, and done again row by row."""
        if not worker.ready:
            raise RunError(f"a worker failed: {worker.last_line()}")
        for number, rows in worker.chunks.items():
            if (stage := worker.at.get(number)) is None:  # it waited behind what was in work
                self._suspects.append(rows)
                continue
            self._deaths.update(rows.column("image_id").to_pylist())
            self._suspects.extend(self._suspect(rows.slice(row, 1), stage) for row in range(len(rows)))
        worker.end(at_once=True)
        self._workers[self._workers.index(worker)] = _Worker(self._job, self._threads)

    def _suspect(self, row: pa.Table, stage: str) -> pa.Table:
        deaths = self._deaths[row.column("image_id")[0].as_py()]
        if deaths < MAX_DEATHS:
            return row
        rows = Rows(row, stage)
        rows.fail(0, ImageError(ImageReason.CRASHED, f"its process died {deaths} times while it was in work"))
        return rows.table()

    def _deal(self, worker: _Worker, chunks: Iterator[pa.Table]) -> None:
        """Give a worker as much as it may hold: two chunks, or one suspect and nothing beside it."""
        while worker.ready and not self._stop.is_set() and len(worker.chunks) < _IN_HAND:
            if self._alone.intersection(worker.chunks) or (self._suspects and worker.chunks):
                return
            self._number += 1
            if self._suspects:
                self._alone.add(self._number)
                rows = self._suspects.popleft()
            elif (rows := next(chunks, None)) is None:
                self._dealt = True
                return
            worker.give(Chunk(self._number, rows))

    def _chunks(self, manifest: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The manifest in chunks: as many rows as leave each worker some chunks more, and as many bytes as a block has."""
        for shard in manifest:
            sizes = [UNKNOWN_BYTES if size is None else size for size in shard.column("size").to_pylist()]
            start = 0
            while start < len(shard):
                most = max(1, min(MOST_ROWS, self._left // (3 * self._count)))
                stop, size = start + 1, sizes[start]
                while stop < len(shard) and stop - start < most and size + sizes[stop] <= self._most_bytes:
                    size, stop = size + sizes[stop], stop + 1
                self._left -= stop - start
                yield shard.slice(start, stop - start)
                start = stop


def _own_path() -> str:
    """Where a worker finds modules: where we do, but for the current folder, in which there may be a stranger's `torch.py`.

    With `-P` Python does not look there either. Our own folder is named too: who calls us may have found us by being in it.
    """
    ours = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join(dict.fromkeys([*filter(None, sys.path), ours]))


def _placed(config: Config, threads: int) -> Config:
    """The config with the threads of one worker; those that are set stay."""

    def own(pool: PoolPlacement) -> PoolPlacement:
        return pool.model_copy(update={"threads": pool.threads or threads})

    at = config.placement
    placement = at.model_copy(update={"segment": own(at.segment), "inpaint": own(at.inpaint)})
    return config.model_copy(update={"placement": placement})
