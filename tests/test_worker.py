"""A worker of a run without Ray, in a thread of this process, with stages of the test: what it says, and when."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from occpipe import worker
from occpipe.worker import At, Chunk, Done, Dropped, Failed, Ready, Stop

ROWS = pa.table({"image_id": [1, 2, 3]})


def same(rows: pa.Table) -> pa.Table:
    return rows


class Talk:
    """Our end of the socket, and the thread at the other one."""

    def __init__(self, connection: Connection, thread: Thread) -> None:
        self.connection, self.thread = connection, thread

    def give(self, *words: Any) -> None:
        for word in words:
            self.connection.send(word)

    def hear(self, count: int) -> list[Any]:
        words: list[Any] = []
        for _ in range(count):
            assert self.connection.poll(20), words
            word = self.connection.recv()
            words.append((Done, word.chunk.number) if isinstance(word, Done) else word)
        return words


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Talk]]:
    """A worker with these stages, that has been given its job and is ready."""
    talks = []

    def serve(fetch: Any = same, segment: Any = same, sink: Any = same) -> Talk:
        chain = SimpleNamespace(fetch=fetch, between=(("segment", segment, 2),), sink=sink)
        monkeypatch.setattr(worker, "Chain", lambda _: chain)
        ours, theirs = Pipe()
        with theirs:
            monkeypatch.setattr(sys, "argv", ["worker", str(os.dup(theirs.fileno()))])
        talk = Talk(ours, Thread(target=worker.main))
        talk.thread.start()
        talks.append(talk)
        talk.give("job")
        assert talk.hear(1) == [Ready()]
        return talk

    yield serve
    for talk in talks:
        talk.connection.close()
        talk.thread.join(20)
        assert not talk.thread.is_alive(), "it ends when nobody is left to work for"


def test_each_batch_of_a_stage_is_a_sign_of_life(serving: Callable[..., Talk]) -> None:
    talk = serving()
    talk.give(Chunk(7, ROWS))
    words = [At(7, "fetch"), At(7, None), At(7, "segment"), At(7, "segment"), At(7, "sink"), (Done, 7)]
    assert talk.hear(6) == words
    talk.give(None)
    talk.thread.join(20)
    assert not talk.thread.is_alive()


@pytest.mark.parametrize("stage", ["fetch", "segment", "sink"])
@pytest.mark.parametrize("error", [OSError(28, "full"), ConnectionResetError("storage"), EOFError("short")])
def test_what_fails_is_named_though_no_chunk_follows(
    stage: str, error: Exception, serving: Callable[..., Talk]
) -> None:
    def fail(rows: pa.Table) -> pa.Table:
        raise error

    talk = serving(**{stage: fail})
    talk.give(Chunk(1, ROWS))
    *_, last = talk.hear({"fetch": 2, "segment": 4, "sink": 6}[stage])
    assert last == Failed(f"{type(error).__name__}: {error}")


def test_what_was_not_begun_is_dropped_at_a_stop(serving: Callable[..., Talk]) -> None:
    go_on = Event()

    def wait(rows: pa.Table) -> pa.Table:
        assert go_on.wait(20)
        return rows

    talk = serving(segment=wait)
    talk.give(Chunk(1, ROWS))
    talk.hear(3)
    talk.give(Chunk(2, ROWS), Stop(), Chunk(3, ROWS))
    assert talk.hear(4) == [At(2, "fetch"), At(2, None), At(3, "fetch"), At(3, None)]
    go_on.set()
    ends = [word for word in talk.hear(5) if not isinstance(word, At)]
    assert sorted(ends, key=str) == sorted([(Done, 1), Dropped(2), Dropped(3)], key=str)
