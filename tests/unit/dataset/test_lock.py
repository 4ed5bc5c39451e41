from __future__ import annotations

import json
import os
import socket
import threading
import time

import pytest

from occpipe.core.errors import OutputBusyError
from occpipe.dataset.layout import LOCKS
from occpipe.dataset.lock import OutputLock, Share
from occpipe.io.storage import Store
from tests.helpers.memory import MemoryStore

KEY = Share().key


@pytest.fixture
def store() -> Store:
    return MemoryStore()


def held_by(host: str, pid: int = 1, age: float = 0.0) -> bytes:
    return json.dumps({"host": host, "pid": pid, "lock_id": "other", "beat": time.time() - age}).encode()


def test_one_writer_an_output(store: Store) -> None:
    with OutputLock(store), pytest.raises(OutputBusyError, match="pid"), OutputLock(store):
        pass
    with OutputLock(store):
        pass


def test_drivers_of_different_shares_write_at_once(store: Store) -> None:
    with OutputLock(store, Share(0, 2)), OutputLock(store, Share(1, 2)):
        assert {entry.key for entry in store.walk(LOCKS)} == {f"{LOCKS}/0-of-2.json", f"{LOCKS}/1-of-2.json"}
        for other in (Share(0, 2), Share(), Share(2, 3)):
            with pytest.raises(OutputBusyError, match="pid"), OutputLock(store, other):
                pass
    assert list(store.walk(LOCKS)) == []
    assert [shard for shard in range(6) if Share(1, 3).has(shard)] == [1, 4]


def test_a_dead_driver_of_another_division_is_passed_over(store: Store) -> None:
    store.write(Share(0, 2).key, held_by("elsewhere", age=3600))
    with OutputLock(store):
        assert [entry.key for entry in store.walk(LOCKS)] == [KEY]


def test_a_dead_writers_lock_is_taken_over(store: Store) -> None:
    for held in (held_by("elsewhere", age=3600), held_by(socket.gethostname(), 2**30)):
        store.write(KEY, held)
        with OutputLock(store):
            assert json.loads(store.read(KEY))["pid"] == os.getpid()
        assert list(store.walk(LOCKS)) == []


def test_a_writer_whose_lock_was_taken_over_is_told(store: Store) -> None:
    with OutputLock(store) as slept:
        slept.confirm()
        store.write(KEY, held_by("elsewhere"))
        with pytest.raises(OutputBusyError, match="taken over by elsewhere pid 1"):
            slept.confirm()
        with pytest.raises(OutputBusyError, match="taken over"):
            slept.check()
    assert json.loads(store.read(KEY))["lock_id"] == "other", "it is the other's to release"


def test_a_writer_whose_successor_has_ended_is_told(store: Store) -> None:
    with OutputLock(store) as slept:
        store.delete(KEY)
        for _ in range(2):
            with pytest.raises(OutputBusyError, match="a run that has ended"):
                slept.confirm()
        assert list(store.walk(LOCKS)) == []


def test_of_two_that_take_over_one_goes_on(store: Store) -> None:
    store.write(KEY, held_by("elsewhere", age=3600))
    went_on, refused = [], []
    ended = threading.Barrier(2)

    def run() -> None:
        try:
            with OutputLock(store):
                went_on.append(1)
                ended.wait(10)
        except OutputBusyError:
            refused.append(1)
            ended.wait(10)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(went_on), len(refused)) == (1, 1)


def test_a_living_writer_elsewhere_keeps_its_lock(store: Store) -> None:
    store.write(KEY, held_by("elsewhere"))
    with pytest.raises(OutputBusyError, match="elsewhere pid 1"), OutputLock(store):
        pass
    store.write(KEY, b"{torn")
    with OutputLock(store):
        pass
