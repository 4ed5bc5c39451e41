"""The ledger below OUTPUT/ledger: the rows that were made, and who is writing.

Rows are committed as Parquet parts named by run and content, so a task that runs twice writes the same part twice. The
parts are the truth; `metadata/` is made from them. A newer run's row for an image replaces an older one. What is done
says `done`, under which config `versions`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import threading
import time
from typing import Any, Self

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from occpipe.errors import OutputBusyError, StorageError
from occpipe.storage import Store, with_retries

PARTS = "ledger/parts"
MANIFESTS = "ledger/manifests"
_LOCK = "ledger/lock.json"
HEARTBEAT_S = 20.0
EXPIRY_S = 120.0
TAKE_OVER_S = 1.0


def to_parquet(table: pa.Table, row_group_size: int | None = None) -> bytes:
    """A table as the bytes of one Parquet file (zstd); equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_size)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_parquet(store: Store, key: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet object of a store, or some of its columns."""
    return pq.read_table(pa.BufferReader(store.read(key)), columns=columns)


def write_part(store: Store, run: int, rows: pa.Table) -> str:
    """Commit rows as one part and return its key; the same rows of the same run give the same key."""
    data = to_parquet(rows)
    key = f"{PARTS}/{run:06d}-{hashlib.sha256(data).hexdigest()[:24]}.parquet"
    with_retries(lambda: store.write(key, data))
    return key


def part_keys(store: Store, first_run: int = 1) -> list[str]:
    """The committed parts of a run and those after it, from the oldest run to the newest."""
    keys = sorted(entry.key for entry in store.walk(PARTS) if entry.key.endswith(".parquet"))
    return [key for key in keys if run_of(key) >= first_run]


def next_run(store: Store) -> int:
    """The number of a run that begins now; the first is 1."""
    return 1 + max(map(run_of, part_keys(store)), default=0)


def run_of(part: str) -> int:
    """The run that wrote a part."""
    return int(part.rsplit("/", 1)[1].split("-", 1)[0])


class OutputLock:
    """One writer per output: an object made by a conditional write, kept alive by a heartbeat.

    A lock whose heartbeat is older than `EXPIRY_S` (seconds), or whose process on this machine is gone, is taken over.
    Whoever was not gone but asleep sees that by `check` and `confirm`, which raise OutputBusyError.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._holder = {"host": socket.gethostname(), "pid": os.getpid(), "lock_id": secrets.token_hex(8)}
        self._taken_by: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="occpipe-lock", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except OSError as error:
            raise StorageError(f"{self._store.uri} cannot be written: {error}") from error
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # it expires by itself, and must not hide how the run ended
            if self._is_own(self._read() or {}):
                self._store.delete(_LOCK)

    def check(self) -> None:
        """Raise where a heartbeat has found another holder; costs nothing."""
        if self._taken_by is not None:
            by = self._taken_by
            holder = f"{by.get('host')} pid {by.get('pid')}" if by else "a run that has ended"
            raise OutputBusyError(
                f"{self._store.uri} was taken over by {holder}: this run was not heard of for too long"
            )

    def confirm(self) -> None:
        """Look once more who holds the lock, and raise where it is another one; OSError where the store does not answer."""
        self._renew()
        self.check()

    def _acquire(self) -> None:
        if not self._store.create(_LOCK, self._record()):
            held = self._read() or {}
            age = time.time() - float(held.get("beat", 0))
            if age < EXPIRY_S and not self._is_dead(held):
                holder = f"{held.get('host')} pid {held.get('pid')}"
                raise OutputBusyError(f"{self._store.uri} is being written by {holder} ({age:.0f} s ago)")
            self._store.write(_LOCK, self._record())
            time.sleep(TAKE_OVER_S)  # of those that take it over at the same time, the last one to write has it
            self.confirm()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # the next beat may pass; six have to fail before the lock expires
                self._renew()

    def _renew(self) -> None:
        if self._taken_by is not None:
            return
        held = self._read()
        if held is None or (held and not self._is_own(held)):  # gone: whoever took it over has released it
            self._taken_by = held or {}
        else:
            self._store.write(_LOCK, self._record())

    def _is_own(self, held: dict[str, Any]) -> bool:
        return held.get("lock_id") == self._holder["lock_id"]

    def _record(self) -> bytes:
        return json.dumps({**self._holder, "beat": time.time()}).encode()

    def _is_dead(self, held: dict[str, Any]) -> bool:
        """Whether the holder was a process of this machine that is gone: no need to wait for its lock to expire."""
        return held.get("host") == self._holder["host"] and not psutil.pid_exists(int(held.get("pid", 0)))

    def _read(self) -> dict[str, Any] | None:
        """Who holds the lock: None where there is none, empty where it is torn, and so nobody's."""
        try:
            held: dict[str, Any] = json.loads(self._store.read(_LOCK))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return held
