"""How many cores torch uses in a thread of this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Let torch compute on one core in this thread, so that sums are equal to the bit on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
