"""The listing as a thread of the driver, so that images are cleaned while the corpus is still being listed.

One of several drivers lists. The others follow the manifest as it grows; one of them lists where the first has died.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

from occpipe.core.errors import OutputBusyError
from occpipe.dataset.layout import LOCKS, STATE, Layout
from occpipe.dataset.listing import Listed
from occpipe.dataset.lock import Holder, Lock, read_holder
from occpipe.dataset.manifest import load_index
from occpipe.dataset.shards import list_shards
from occpipe.io.storage import Store
from occpipe.pipeline.job import Listing

if TYPE_CHECKING:
    from occpipe.pipeline.backlog import Backlog

_LOCK = f"{LOCKS}/listing.json"
_LISTED = f"{STATE}/listed.json"
_POLL_S = 2.0
_CHECK_S = 1.0
_END_S = 60.0
logger = logging.getLogger(__name__)


class _End:
    """The listing is at its end, or has failed."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _NeedsTasks:
    """The listing waits for an executor, because it has more than one step."""


def list_nothing(*_: object) -> Iterator[Listed]:
    """A listing that looks at no corpus."""
    return iter(())


class Lister:
    """Lists in a thread, inside a `with`; `follow` leaves that to another driver of the same output.

    `check` raises where this run no longer holds the output.
    """

    def __init__(
        self,
        listing: Listing,
        store: Store,
        layout: Layout,
        shard_images: int,
        limit: int | None,
        check: Callable[[], None],
        *,
        follow: bool,
    ) -> None:
        self._listing, self._store, self._layout, self._check = listing, store, layout, check
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
        self._thread.join(_END_S)  # it holds a lock, and its tasks need the Ray that ends next

    def give(self, executor: Executor) -> None:
        """Let the listing run tasks from now on."""
        self._executor = executor
        self._has_executor.set()

    def take(self, backlog: Backlog, need_tasks: Callable[[], object], stop: Event, *, wait: bool) -> bool:
        """Add the new and changed shards to the backlog; with `wait`, return only after some, unless the run is to stop.

        Returns whether the listing is at its end. Raises an error of the listing.
        """
        while not self._ended:
            try:
                event = self._events.get(block=wait, timeout=_CHECK_S)
            except Empty:
                self._check()
                if wait and not stop.is_set():
                    continue
                break
            match event:
                case Listed():
                    backlog.add(event.added)
                    backlog.examine_again(event.changed)
                    wait = wait and not (event.added or event.changed)
                case _NeedsTasks():
                    need_tasks()
                case _End():
                    self._ended = True
                    if event.error is not None:
                        raise event.error
        return self._ended

    def _work(self) -> None:
        try:
            self._list_or_follow()
        except BaseException as error:
            logger.debug("the listing failed", exc_info=error)
            self._events.put(_End(error))
        else:
            self._events.put(_End())

    def _list_or_follow(self) -> None:
        if not self._follow:
            self._list(self._check)
            return
        while not self._abandoned.is_set():
            holder = read_holder(self._store, _LOCK)
            if holder and holder.is_alive:
                if self._follow_lister(holder.lock_id):
                    return
                continue
            with contextlib.suppress(OutputBusyError), Lock(self._store, _LOCK) as lock:
                self._list(lock.check)
                if not self._abandoned.is_set():
                    self._store.write(_LISTED, json.dumps({"lock_id": lock.id}).encode())
                return

    def _follow_lister(self, lock_id: str) -> bool:
        """Follow the listing of another driver while it is alive; True where that listing came to its end."""
        known: set[int] = set()
        while not self._abandoned.is_set():
            holder = read_holder(self._store, _LOCK) or Holder()
            alive = holder.is_alive and holder.lock_id == lock_id
            added = tuple(info for info in load_index(self._store) if info.number not in known)
            known.update(info.number for info in added)
            changed = () if alive else tuple(sorted(list_shards(self._store, self._layout.all_open)))
            if added or changed:
                self._events.put(Listed(len(known), added, changed))
            if not alive:
                with contextlib.suppress(FileNotFoundError):
                    return bool(json.loads(self._store.read(_LISTED))["lock_id"] == lock_id)
                return False
            time.sleep(_POLL_S)
        return True

    def _list(self, check: Callable[[], None]) -> None:
        def executor() -> Executor:
            self._events.put(_NeedsTasks())
            self._has_executor.wait()
            if self._executor is None:
                raise RuntimeError("the run has ended")
            return self._executor

        def mark_changed(shard: int) -> None:
            self._store.write(self._layout.open_marker(shard), b"")

        for listed in self._listing(self._store, self._shard_images, self._limit, executor, mark_changed):
            check()
            self._events.put(listed)
            if self._abandoned.is_set():
                return
