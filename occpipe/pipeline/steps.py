"""The steps of a job, written once: the executor, the planner, the capacity check and the monitor read them here.

    list     corpus -> manifest shards                 tasks, bound by the store's pages
    load     bytes -> pixels at the model's size       tasks, bound by decoding; the read of Ray Data
    segment  pixels -> things and stuff                pool A, bound by the forward pass
    relate   verdicts and the removal mask             tasks, milliseconds an image
    inpaint  rows with a mask: bytes -> new bytes      pool B, bound by the model on crops
    write    the image first, then a part with rows    tasks, bound by the network
    commit   the parts of a shard -> its file          tasks, one a shard

Two pools, because the stages differ in how many images need them: segment sees each image, inpaint those with a removal.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["clean", "scan", "apply"]

STAGES = ("load", "segment", "relate", "inpaint", "write")
"""Those that `placement` names and a run watches, in data order."""
POOLS = ("segment", "inpaint")
"""Those that run in pools of actors."""

STEPS: dict[Kind, tuple[str, ...]] = {
    "clean": STAGES,
    "scan": ("load", "segment", "relate", "write"),
    "apply": ("load", "relate", "inpaint", "write"),
}
"""The stages of each command. The `load` of an `apply` reads the rows of a scan, and no image."""

SLICE_ROWS = 32
"""Images that a load task has in work at once, and that travel together where their pixels fit a block."""
UNITS_PER_SHARD = 16
"""So that the images of a small corpus spread over a machine, and the first of them are done early."""
MIN_UNIT_ROWS = 4
"""Images of a unit at least, where there are as many: a segmenter on a CPU looks at one on each core."""


def unit_rows(images: int, limit: int) -> int:
    """Images of a read task, of so many in a shard: full slices, because the rest of one costs a GPU as much time."""
    rows = max(MIN_UNIT_ROWS, -(-images // UNITS_PER_SHARD))
    return min(limit, rows if rows < SLICE_ROWS else -(-rows // SLICE_ROWS) * SLICE_ROWS)
