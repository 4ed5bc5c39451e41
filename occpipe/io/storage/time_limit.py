"""A time limit for reads that may hang: a dead network mount returns neither bytes nor an error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

from occpipe.io.storage.base import HungError

T = TypeVar("T")


def within(limit_s: float, call: Callable[[], T]) -> T:
    """The result or the error of `call`; HungError if it takes longer than the limit.

    It runs in its own thread. A thread that hangs cannot be ended and is left behind.
    """
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - result() raises it
            result.set_exception(error)

    Thread(target=work, name="occpipe-read", daemon=True).start()
    done, _ = wait([result], limit_s)
    if not done:
        raise HungError(f"no answer within {limit_s:g} s (storage.*.read_timeout_s)")
    return result.result()
