"""The ledger below OUTPUT/ledger: which images are done, under which config, and who is writing.

Rows are committed as Parquet parts named by run and content, so a task that runs twice writes the same part twice. The
parts are the truth; `metadata/` is made from them. A newer run's row for an image replaces an older one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from occpipe.config import Config
from occpipe.errors import ConfigError, OutputBusyError, StorageError
from occpipe.storage import Store, with_retries
from occpipe.types import Status

PARTS = "ledger/parts"
MANIFESTS = "ledger/manifests"
_BINDING = "ledger/made_with.json"
_LOCK = "ledger/lock.json"
HEARTBEAT_S = 20.0
EXPIRY_S = 120.0


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


def part_keys(store: Store) -> list[str]:
    """The committed parts, from the oldest run to the newest."""
    return sorted(entry.key for entry in store.walk(PARTS) if entry.key.endswith(".parquet"))


def run_of(part: str) -> int:
    """The run that wrote a part."""
    return int(part.rsplit("/", 1)[1].split("-", 1)[0])


def etag_hash(etag: str | None) -> int:
    """A 64-bit hash of a storage tag, so that 100 million of them fit into memory."""
    return int.from_bytes(hashlib.blake2b((etag or "").encode(), digest_size=8).digest(), "little", signed=True)


@dataclass(frozen=True, slots=True)
class Done:
    """What needs no work: sorted image ids (int64, N) with the hash of the etag each was done at (int64, N)."""

    ids: NDArray[np.int64]
    etags: NDArray[np.int64]

    def covers(self, ids: NDArray[np.int64], etags: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these images are done at this etag."""
        if not len(self.ids):
            return np.zeros(len(ids), dtype=bool)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        covered: NDArray[np.bool_] = (self.ids[at] == ids) & (self.etags[at] == etags)
        return covered


def load_done(store: Store, retry: str) -> tuple[Done, int]:
    """What is done according to the parts, and the number of the next run.

    `retry`: `none` counts every row as done, `errors` all but error rows, `all` none.
    """
    keys = part_keys(store)
    run = 1 + max((run_of(key) for key in keys), default=0)
    ids, etags, done = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, bool)]
    for key in keys if retry != "all" else ():
        rows = read_parquet(store, key, ["image_id", "etag", "status"])
        ids.append(rows.column("image_id").to_numpy())
        etags.append(np.array([etag_hash(tag) for tag in rows.column("etag").to_pylist()], np.int64))
        statuses = np.array(rows.column("status").to_pylist(), dtype=object)
        done.append(np.ones(len(rows), bool) if retry == "none" else statuses != Status.ERROR)
    id_column, etag_column, done_column = (np.concatenate(parts) for parts in (ids, etags, done))
    # Of several rows of an image the last one counts: keys are in order of their runs, and the sort keeps that order.
    order = np.argsort(id_column, kind="stable")
    last = np.ones(len(order), bool)
    last[:-1] = id_column[order][1:] != id_column[order][:-1]
    chosen = order[last]
    chosen = chosen[done_column[chosen]]
    return Done(id_column[chosen], etag_column[chosen]), run


def bind_output(store: Store, config: Config, models: list[dict[str, str | None]], root: str) -> None:
    """Tie an output to the input, config and weights of its first run; raises ConfigError where it has others.

    One data set, one way it was made: mixed settings could not be told apart by who reads the images, and two inputs
    with the same relative names would overwrite each other.
    """
    now = {"input": root, "config": config.digest, "weights": {str(m["name"]): m["sha256"] for m in models}}
    record = json.dumps({**now, "settings": config.model_dump(mode="json")}, indent=1)
    if store.create(_BINDING, record.encode()):
        return
    then = json.loads(store.read(_BINDING))
    for what, value in now.items():
        if then[what] != value:
            difference = f"{then[what]}, now {value}"
            if what == "config":
                difference = _difference(then["settings"], config.model_dump(mode="json")) or difference
            raise ConfigError(f"{store.uri} was made with another {what} ({difference}); choose a new output")


def _difference(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str:
    """`policy.cut was None, now 0.3`, for each key that decides about the output."""
    parts = []
    for key in now:
        if isinstance(now[key], dict):
            parts.append(_difference(then.get(key, {}), now[key], f"{prefix}{key}."))
        elif then.get(key) != now[key] and not prefix.startswith(("placement.", "ray.", "weights.")):
            parts.append(f"{prefix}{key} was {then.get(key)}, now {now[key]}")
    return "; ".join(part for part in parts if part)


class OutputLock:
    """One writer per output: an object made by a conditional write, kept alive by a heartbeat.

    A lock whose heartbeat is older than `EXPIRY_S` (seconds), or whose process on this machine is gone, is taken over.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._holder = {"host": socket.gethostname(), "pid": os.getpid()}
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
            if {**self._read(), "beat": 0} == {**self._holder, "beat": 0}:
                self._store.delete(_LOCK)

    def _acquire(self) -> None:
        if not self._store.create(_LOCK, self._record()):
            held = self._read()
            age = time.time() - float(held.get("beat", 0))
            if age < EXPIRY_S and not self._is_dead(held):
                holder = f"{held.get('host')} pid {held.get('pid')}"
                raise OutputBusyError(f"{self._store.uri} is being written by {holder} ({age:.0f} s ago)")
            self._store.write(_LOCK, self._record())

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # the next beat may pass; six have to fail before the lock expires
                self._store.write(_LOCK, self._record())

    def _record(self) -> bytes:
        return json.dumps({**self._holder, "beat": time.time()}).encode()

    def _is_dead(self, held: dict[str, Any]) -> bool:
        """Whether the holder was a process of this machine that is gone: no need to wait for its lock to expire."""
        return held.get("host") == self._holder["host"] and not psutil.pid_exists(int(held.get("pid", 0)))

    def _read(self) -> dict[str, Any]:
        try:
            held: dict[str, Any] = json.loads(self._store.read(_LOCK))
        except (FileNotFoundError, ValueError):  # released this moment, or torn: nobody's
            return {}
        return held
