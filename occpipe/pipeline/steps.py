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
