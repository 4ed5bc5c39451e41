"""The listing as a thread of the driver: work goes on while the corpus is still being listed.

One of several drivers lists; the others follow the manifest as it grows, and list themselves only where that one has died.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from concurrent.futures import Executor
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import Protocol, Self

from occpipe.dataset.layout import LOCKS, STATE, Layout
from occpipe.dataset.listing import Listed
from occpipe.dataset.lock import Lock, is_alive, read_holder
from occpipe.dataset.manifest import ShardInfo, load_index
from occpipe.errors import OutputBusyError
from occpipe.pipeline.job import Source
from occpipe.storage import Store

_LOCK = f"{LOCKS}/listing.json"
_LISTED = f"{STATE}/listed.json"
_POLL_S = 2.0


class Shards(Protocol):
    """What takes in the shards that a listing finds."""

    def add(self, shards: tuple[ShardInfo, ...]) -> None:
        """New shards."""
        ...

    def look_again(self, shards: tuple[int, ...]) -> None:
        """Shards with images that have changed."""
        ...


class HasExecutor(Protocol):
    """What runs tasks."""

    @property
    def executor(self) -> Executor:
        """Where they run."""
        ...


class _End:
    """The listing is at its end, or has failed."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _NeedsTasks:
    """The listing waits for an executor: there is more than one step of it."""


class Lister:
    """Lists in a thread, inside a `with`; `follow` lets another driver of the same output do it."""

    def __init__(
        self, source: Source, store: Store, layout: Layout, shard_images: int, limit: int | None, *, follow: bool
    ) -> None:
        self._source, self._store, self._layout = source, store, layout
        self._shard_images, self._limit, self._follow = shard_images, limit, follow
        self._events: SimpleQueue[Listed | _End | _NeedsTasks] = SimpleQueue()
        self._executor: Executor | None = None
        self._has_executor, self._abandoned = Event(), Event()
        self._ended = False
        self._thread = Thread(target=self._work, name="occpipe-listing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()
        self._has_executor.set()

    def take(self, shards: Shards, session: Callable[[], HasExecutor], *, wait: bool) -> bool:
        """Pass on what was listed so far, and with `wait` at least something; whether the listing is at its end.

        Raises what the listing raised.
        """
        while not self._ended:
            try:
                event = self._events.get(block=wait)
            except Empty:
                break
            match event:
                case Listed():
                    shards.add(event.added)
                    shards.look_again(event.changed)
                    wait = wait and not (event.added or event.changed)
                case _NeedsTasks():
                    self._executor = session().executor
                    self._has_executor.set()
                case _End():
                    self._ended = True
                    if event.error is not None:
                        raise event.error
        return self._ended

    def _work(self) -> None:
        try:
            self._list_or_follow()
        except BaseException as error:  # noqa: BLE001 - it is raised where the run waits for the listing
            self._events.put(_End(error))
        else:
            self._events.put(_End())

    def _list_or_follow(self) -> None:
        if not self._follow:
            self._list()
            return
        while not self._abandoned.is_set():
            held = read_holder(self._store, _LOCK)
            if held and is_alive(held):
                if self._followed(str(held.get("lock_id"))):
                    return
                continue
            with contextlib.suppress(OutputBusyError), Lock(self._store, _LOCK) as lock:
                self._list()
                self._store.write(_LISTED, json.dumps({"lock_id": lock.id}).encode())
                return

    def _followed(self, lock_id: str) -> bool:
        """Take over what another driver lists, while it is alive; whether it came to the end of its listing."""
        known: dict[int, int] = {}
        while not self._abandoned.is_set():
            held = read_holder(self._store, _LOCK)
            alive = bool(held) and is_alive(held or {}) and (held or {}).get("lock_id") == lock_id
            added = tuple(info for info in load_index(self._store) if info.number not in known)
            known.update((info.number, info.rows) for info in added)
            if added:
                self._events.put(Listed(sum(known.values()), added, ()))
            if not alive:
                with contextlib.suppress(FileNotFoundError):
                    return bool(json.loads(self._store.read(_LISTED))["lock_id"] == lock_id)
                return False
            time.sleep(_POLL_S)
        return True

    def _list(self) -> None:
        def executor() -> Executor:
            self._events.put(_NeedsTasks())
            self._has_executor.wait()
            if self._abandoned.is_set() or self._executor is None:
                raise RuntimeError("the run has ended")
            return self._executor

        def mark_changed(shard: int) -> None:
            self._store.write(self._layout.open_marker(shard), b"")

        for listed in self._source.list(self._store, self._shard_images, self._limit, executor, mark_changed):
            self._events.put(listed)
            if self._abandoned.is_set():
                return
