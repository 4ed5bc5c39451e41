"""Stages walked one by one, without Ray."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import pyarrow as pa

from occpipe.stages.rows import Rows
from occpipe.stages.stage import Setup, Stage


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


class Failing(Stage):
    """Fails on each image, in the place of `segment` and `relate`."""

    READS = ("uri", "pixels")
    WRITES = ("objects", "stuff", "mask", "removed", "config", "status", "reason", "error")
    DROPS = ("pixels",)

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls()

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "failing")
        for index in rows.open():
            with rows.attempt(index):
                raise LookupError("a fault of the stage")
        columns = {name: rows.nulls() for name in ("objects", "stuff", "mask", "removed")}
        return rows.table(self.DROPS, **columns, config=["none"] * len(batch))
