"""Standard streams that may go away: a reader such as `head` ends, a terminal is closed, a stream was never open.

A run goes on without them, because its rows are worth more than watching it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO

from rich.console import Console


def open_standard_streams() -> None:
    """Open those that the caller closed (`2>&-`) on nothing; else the next file that is opened would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def let_go(stream: TextIO) -> None:
    """From now on what is written to a stream that nobody reads goes nowhere, also what it still holds."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no number
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class LastingStream:
    """A stream of which it does not matter whether somebody reads it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or let the stream go."""
        try:
            return self._stream.write(text)
        except OSError:
            let_go(self._stream)
            return len(text)

    def flush(self) -> None:
        """Pass on what is held, or let the stream go."""
        try:
            self._stream.flush()
        except OSError:
            let_go(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def messages() -> Console:
    """A console on standard error that outlives its reader."""
    return Console(file=LastingStream(sys.stderr), stderr=True)  # type: ignore[arg-type]  # the part of a file that rich uses
