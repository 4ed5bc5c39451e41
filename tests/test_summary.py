"""What a run counts of its rows."""

from __future__ import annotations

import pyarrow as pa

from occpipe.summary import Made


def test_a_copy_counts_once_it_is_written() -> None:
    error = {"stage": "sink", "type": "OSError", "message": "full"}
    rows = [
        {"uri": "a.jpg", "status": "cleaned", "reason": None, "error": None, "copied": True},
        {"uri": "b.jpg", "status": "error", "reason": "unreachable", "error": error, "copied": True},
        {"uri": "c.jpg", "status": "cleaned", "reason": None, "error": None, "copied": None},
    ]
    made = Made()
    made.add(pa.Table.from_pylist(rows))
    assert made.copied == 1
    assert made.statuses == {"cleaned": 2, "error": 1}
    assert made.examples == {"unreachable": "b.jpg: full"}
