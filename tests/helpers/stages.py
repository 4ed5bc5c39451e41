"""Stages walked one by one, without Ray."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa


def keep_to_declarations(stages: Iterable[Any], batch: pa.Table) -> pa.Table:
    """The batch after all stages, each of which is also given only the columns that it names, with the same result.

    A column that it WRITES or DROPS may be there before, or not.
    """
    for stage in stages:
        drops = {*getattr(stage, "DROPS", ())}
        assert {*stage.READS} <= {*batch.column_names, "status", "reason", "error"}
        named = {*stage.READS, *stage.WRITES, *drops}
        needed = batch.select([name for name in batch.column_names if name in named])
        alone = stage(needed)
        assert {*alone.column_names} == ({*needed.column_names} | {*stage.WRITES}) - drops
        batch = stage(batch)
        for name in stage.WRITES:
            assert alone.column(name).equals(batch.column(name)), (type(stage).__name__, name)
    return batch
