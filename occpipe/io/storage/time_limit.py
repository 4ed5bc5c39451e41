"""A time limit for reads that may hang: a dead network mount gives neither bytes nor an error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

from occpipe.io.storage.base import HungError

T = TypeVar("T")


def within(limit_s: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises; HungError where it does neither in time.

    It runs in a thread of its own, which is left behind where it hangs: nothing can end it.
    """
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            result.set_exception(error)

    Thread(target=work, name="occpipe-read", daemon=True).start()
    done, _ = wait([result], limit_s)
    if not done:
        raise HungError(f"no answer within {limit_s:g} s (storage.*.read_timeout_s)")
    return result.result()
