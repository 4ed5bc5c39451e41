"""One writer for each share of an output's shards: an object that is created by a conditional write, with a heartbeat.

A lock whose heartbeat is older than `EXPIRY_S`, or whose process on this machine is gone, is taken over. A holder that was
only suspended gets an OutputBusyError from `check` and `confirm`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from typing import NamedTuple, Self

import psutil

from occpipe.core.errors import OutputBusyError, StorageError
from occpipe.dataset.layout import LOCKS
from occpipe.io.storage import Store

HEARTBEAT_S = 20.0
EXPIRY_S = 120.0
TAKE_OVER_S = 1.0
logger = logging.getLogger(__name__)


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


class Holder(NamedTuple):
    """Who holds a lock, and the time of the last heartbeat in seconds; all empty where the record is damaged."""

    host: str = ""
    pid: int = 0
    lock_id: str = ""
    beat: float = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the holder may still be at work."""
        is_fresh = time.time() - self.beat < EXPIRY_S
        is_here = self.host == socket.gethostname()  # no need to wait where its process was one of this machine
        return is_fresh and not (is_here and not psutil.pid_exists(self.pid))

    def __str__(self) -> str:
        return f"{self.host} pid {self.pid}"


class Lock:
    """An object that one process holds; use it in a `with`. Raises OutputBusyError where another one holds it."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self.id = secrets.token_hex(8)
        self._taken_by: Holder | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="occpipe-lock", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._release()
            raise StorageError(f"{self._store.uri} cannot be written: {error}") from error
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # it expires by itself, and must not hide how the run ended
            self._release()

    def check(self) -> None:
        """Raise where a heartbeat has met another holder; costs nothing."""
        if self._taken_by is not None:
            holder = str(self._taken_by) if self._taken_by.lock_id else "a run that has ended"
            raise OutputBusyError(
                f"{self._store.uri} was taken over by {holder}: this run sent no heartbeat for too long"
            )

    def confirm(self) -> None:
        """Read the lock once more, and raise where another run holds it; OSError where the store does not answer."""
        self._renew()
        self.check()

    def _acquire(self) -> None:
        if not self._store.create(self._key, self._record()):
            holder = read_holder(self._store, self._key) or Holder()
            if holder.is_alive:
                raise busy(self._store, holder)
            logger.warning("%s: the lock of %s has expired, and is taken over", self._store.uri, holder)
            self._store.write(self._key, self._record())
            time.sleep(TAKE_OVER_S)  # of those that take it over at the same time, the last one to write has it
            self.confirm()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self._renew()
            except OSError as error:  # the next beat may pass; six have to fail before the lock expires
                logger.warning("%s: a heartbeat failed: %s", self._store.uri, error)

    def _renew(self) -> None:
        if self._taken_by is not None:
            return
        holder = read_holder(self._store, self._key)
        if holder is None or holder.lock_id not in ("", self.id):  # none: the run that took it over has released it
            self._taken_by = holder or Holder()
        else:
            self._store.write(self._key, self._record())

    def _release(self) -> None:
        holder = read_holder(self._store, self._key)
        if holder is not None and holder.lock_id == self.id:
            self._store.delete(self._key)

    def _record(self) -> bytes:
        return json.dumps(Holder(socket.gethostname(), os.getpid(), self.id, time.time())._asdict()).encode()


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
            holder = read_holder(self._store, entry.key) or Holder()
            if holder.is_alive:
                self._store.delete(self._key)
                raise busy(self._store, holder)
            self._store.delete(entry.key)


def read_holder(store: Store, key: str) -> Holder | None:
    """Who holds a lock; None where there is none."""
    try:
        record = json.loads(store.read(key))
        return Holder(str(record["host"]), int(record["pid"]), str(record["lock_id"]), float(record["beat"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        return Holder()


def busy(store: Store, holder: Holder) -> OutputBusyError:
    """The error for an output that another process writes."""
    return OutputBusyError(f"{store.uri} is being written by {holder} ({time.time() - holder.beat:.0f} s ago)")
