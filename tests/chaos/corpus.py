"""A corpus of small photos for the fault table: quick to clean, some with a cat to remove, and two that are trouble."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from tests.helpers.scenes import photo

POISON = b"POISON"
SETTINGS = (
    "policy.protect=[]",
    "policy.remove=[cat]",
    "policy.max_area=1",
    "inpainter.model=telea",
    "placement.segment.batch_size=4",
    "placement.inpaint.batch_size=4",
    "shard.images=100",
    "ray.object_store_mb=256",
)
"""Small shards and batches, so that a fault strikes in the middle of a run; every cat is filled in milliseconds."""

_EVERY_CAT = 12


def make_corpus(folder: Path, count: int) -> None:
    """`count` JPEGs, every twelfth with a cat; the third holds the poison in its comment, the fifth is magenta."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    cat = Pil.fromarray(photo("chelsea", 200))
    for number in range(count):
        if number % _EVERY_CAT == 0:
            width = int(rng.integers(160, 201))
            picture = cat.resize((width, width * cat.height // cat.width))
        else:
            noise = rng.integers(0, 256, (4, 6, 3), np.uint8)
            picture = Pil.fromarray(noise).resize((96, 64), Pil.Resampling.BICUBIC)
        if number == 5:
            picture = Pil.new("RGB", (96, 64), (255, 0, 255))
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=90, comment=POISON if number == 3 else b"")
        (folder / f"{number:04d}.jpg").write_bytes(data.getvalue())
