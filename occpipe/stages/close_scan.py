"""close_scan: the end of a scan, in place of inpainting and writing; 1:1, no image is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from occpipe.core.types import Status
from occpipe.stages.rows import Rows
from occpipe.stages.stage import Setup, Stage


@dataclass(frozen=True)
class CloseScan(Stage):
    """Closes the rows that have a mask as scanned."""

    READS = ("status", "reason", "error")
    WRITES = ("lost", "output", "output_offset", "output_size", "output_sha256", "status", "reason", "error")
    DROPS = ("earlier",)

    @classmethod
    def build(cls, setup: Setup) -> Self:  # noqa: ARG003 - it needs nothing of a job
        return cls()

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "write")
        for index in rows.open():
            rows.finish(index, Status.SCANNED)
        return rows.table(self.DROPS, **{name: rows.nulls() for name in self.WRITES if name not in rows.STATE})
