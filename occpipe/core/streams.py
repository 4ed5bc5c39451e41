"""Standard streams that may be lost: a reader such as `head` ends, a terminal is closed, a stream was never open.

A run continues without them, because its rows matter more than its messages.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO

from rich.console import Console


def open_standard_streams() -> None:
    """Open closed standard streams (`2>&-`) on /dev/null; else the next file that is opened would get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def discard(stream: TextIO) -> None:
    """Redirect a stream without a reader to /dev/null, with the text that it has buffered."""
    with contextlib.suppress(OSError, ValueError):  # a stream in a test has no file descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class LastingStream:
    """A stream that continues when its reader is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or discard the stream."""
        try:
            return self._stream.write(text)
        except OSError:
            discard(self._stream)
            return len(text)

    def flush(self) -> None:
        """Flush the buffer, or discard the stream."""
        try:
            self._stream.flush()
        except OSError:
            discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def messages() -> Console:
    """A console on standard error that continues when its reader is gone."""
    return Console(file=LastingStream(sys.stderr), stderr=True)  # type: ignore[arg-type]  # has the methods that rich calls
