"""What a run counts of its rows."""

from __future__ import annotations

import json

import pyarrow as pa

from occpipe.pipeline.monitoring.run_result import BLOCK, RunCounts, block_summary


def test_a_copy_counts_once_it_is_written() -> None:
    error = {"stage": "write", "type": "OSError", "message": "full"}
    rows = [
        {"uri": "a.jpg", "status": "cleaned", "reason": None, "error": None, "copied": True},
        {"uri": "b.jpg", "status": "error", "reason": "unreachable", "error": error, "copied": True},
        {"uri": "c.jpg", "status": "cleaned", "reason": None, "error": None, "copied": None},
    ]
    (block,) = block_summary(3, pa.Table.from_pylist(rows)).cast(BLOCK).to_pylist()
    assert (block["shard"], block["rows"]) == (3, 3)
    counts = RunCounts()
    counts.add(json.loads(block["summary"]))
    assert counts.copied == 1
    assert counts.statuses == {"cleaned": 2, "error": 1}
    assert counts.failed == 1, "it may pass"
    assert counts.examples == {"unreachable": "b.jpg: full"}
