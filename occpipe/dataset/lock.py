"""One writer for each share of an output's shards: an object made by a conditional write, kept alive by a heartbeat.

A lock whose heartbeat is older than `EXPIRY_S` (seconds), or whose process on this machine is gone, is taken over. Its
holder, if it only slept, sees that by `check` and `confirm`, which raise OutputBusyError.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from typing import Any, NamedTuple, Self

import psutil

from occpipe.core.errors import OutputBusyError, StorageError
from occpipe.dataset.layout import LOCKS
from occpipe.io.storage import Store

HEARTBEAT_S = 20.0
EXPIRY_S = 120.0
TAKE_OVER_S = 1.0


class Share(NamedTuple):
    """The shards that one of several drivers works on: those whose number leaves `number` when divided by `of`."""

    number: int = 0
    of: int = 1

    def has(self, shard: int) -> bool:
        """Whether a shard is of this share."""
        return shard % self.of == self.number

    @property
    def key(self) -> str:
        """The lock of this share."""
        return f"{LOCKS}/{self.number}-of-{self.of}.json"


WHOLE = Share()


class Lock:
    """An object that one process holds; use it in a `with`. Raises OutputBusyError where another one holds it."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self.id = secrets.token_hex(8)
        self._holder = {"host": socket.gethostname(), "pid": os.getpid(), "lock_id": self.id}
        self._taken_by: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="occpipe-lock", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except OSError as error:
            with contextlib.suppress(OSError):
                if self._is_own(read_holder(self._store, self._key) or {}):
                    self._store.delete(self._key)
            raise StorageError(f"{self._store.uri} cannot be written: {error}") from error
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # it expires by itself, and must not hide how the run ended
            if self._is_own(read_holder(self._store, self._key) or {}):
                self._store.delete(self._key)

    def check(self) -> None:
        """Raise where a heartbeat has found another holder; costs nothing."""
        if self._taken_by is not None:
            by = self._taken_by
            holder = _name(by) if by else "a run that has ended"
            raise OutputBusyError(
                f"{self._store.uri} was taken over by {holder}: this run sent no heartbeat for too long"
            )

    def confirm(self) -> None:
        """Look once more who holds the lock, and raise where it is another one; OSError where the store does not answer."""
        self._renew()
        self.check()

    def _acquire(self) -> None:
        if not self._store.create(self._key, self._record()):
            held = read_holder(self._store, self._key) or {}
            if is_alive(held):
                raise busy(self._store, held)
            self._store.write(self._key, self._record())
            time.sleep(TAKE_OVER_S)  # of those that take it over at the same time, the last one to write has it
            self.confirm()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # the next beat may pass; six have to fail before the lock expires
                self._renew()

    def _renew(self) -> None:
        if self._taken_by is not None:
            return
        held = read_holder(self._store, self._key)
        if held is None or (held and not self._is_own(held)):  # gone: whoever took it over has released it
            self._taken_by = held or {}
        else:
            self._store.write(self._key, self._record())

    def _is_own(self, held: dict[str, Any]) -> bool:
        return held.get("lock_id") == self.id

    def _record(self) -> bytes:
        return json.dumps({**self._holder, "beat": time.time()}).encode()


class OutputLock(Lock):
    """The lock of a share of an output; refused while another division of the shards is in work."""

    def __init__(self, store: Store, share: Share = WHOLE) -> None:
        super().__init__(store, share.key)
        self._share = share

    def _acquire(self) -> None:
        super()._acquire()
        for entry in list(self._store.walk(LOCKS)):
            name = entry.key.removeprefix(f"{LOCKS}/").removesuffix(".json")
            _, _, of = name.partition("-of-")
            if entry.key == self._key or not of or of == str(self._share.of):
                continue
            held = read_holder(self._store, entry.key) or {}
            if is_alive(held):
                self._store.delete(self._key)
                raise busy(self._store, held)
            self._store.delete(entry.key)


def read_holder(store: Store, key: str) -> dict[str, Any] | None:
    """Who holds a lock: None where there is none, empty where its record is damaged."""
    try:
        held: dict[str, Any] = json.loads(store.read(key))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return held


def is_alive(held: dict[str, Any]) -> bool:
    """Whether the holder of a lock may still be at work."""
    fresh = time.time() - float(held.get("beat", 0)) < EXPIRY_S
    here = held.get("host") == socket.gethostname()  # no need to wait where its process was one of this machine
    return fresh and not (here and not psutil.pid_exists(int(held.get("pid", 0))))


def busy(store: Store, held: dict[str, Any]) -> OutputBusyError:
    """The error for an output that another process writes."""
    age = time.time() - float(held.get("beat", 0))
    return OutputBusyError(f"{store.uri} is being written by {_name(held)} ({age:.0f} s ago)")


def _name(held: dict[str, Any]) -> str:
    return f"{held.get('host')} pid {held.get('pid')}"
