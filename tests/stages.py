"""Stages walked one by one, without Ray."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa


def keep_to_declarations(stages: Iterable[Any], batch: pa.Table) -> pa.Table:
    """The batch after all stages, each of which is also given what it READS alone, and must make of it what it WRITES."""
    for stage in stages:
        needed = batch.select([name for name in batch.column_names if name in stage.READS])
        alone = stage(needed)
        assert {*alone.column_names} == ({*needed.column_names} | {*stage.WRITES}) - {*getattr(stage, "DROPS", ())}
        batch = stage(batch)
        for name in stage.WRITES:
            assert alone.column(name).equals(batch.column(name)), (type(stage).__name__, name)
    return batch
