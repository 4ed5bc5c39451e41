"""inpaint: fill what was masked, 1:1, in pool B; rows without a mask pass untouched. Bound by the model on the crops.

A photo is decoded in full only here, and only where something is removed. It is encoded as its source was.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from occpipe.config import Config
from occpipe.images import Limits, decode, encode_like
from occpipe.inpainters import Inpainter
from occpipe.inpainters.shadow import cast_shadow
from occpipe.masks import Rle, rle_decode, union_mask
from occpipe.models import load_inpainter, set_threads, source_type
from occpipe.rows import Rows
from occpipe.types import Image, Mask, Status, Verdict


class InpaintStage:
    """Replaces `data` by the cleaned picture where a row has a `mask`, which grows where shadows are taken along."""

    READS = ("data", "mask", "removed", "objects", "height", "width", "status", "reason", "error")
    WRITES = ("data", "mask", "removed", "status", "reason", "error")

    def __init__(self, config: Config, inpainter: Inpainter | None = None) -> None:
        set_threads(config.placement.inpaint.threads, share=0.5)
        self._inpainter = inpainter or load_inpainter(config)
        self._limits = Limits(config.corpus.max_pixels, config.corpus.min_side)
        self._mark, self._shadow = source_type(config), config.inpainter.shadow
        self._codecs = ThreadPoolExecutor(4)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "inpaint")
        data, masks, removed = (batch.column(name).to_pylist() for name in ("data", "mask", "removed"))
        decoded: dict[int, tuple[Image, Mask, Mask]] = {}

        def open_row(index: int) -> None:
            with rows.attempt(index):
                size = rows.value("height", index), rows.value("width", index)
                mask = rle_decode(Rle(*size, masks[index].encode("ascii")))
                image, things = decode(data[index], self._limits), _kept(rows.value("objects", index), size)
                if self._shadow:
                    mask |= cast_shadow(image, mask) & (1 - things)
                    masks[index], removed[index] = Rle.encode(mask).counts.decode("ascii"), float(mask.mean())
                decoded[index] = image, mask, things

        def fill(indices: list[int]) -> list[Image]:
            return self._inpainter.fill_many(*zip(*(decoded[index] for index in indices), strict=True))

        def close_row(index: int) -> None:
            with rows.attempt(index):
                data[index] = encode_like(filled[index], data[index], self._limits, self._mark)
                rows.finish(index, Status.CLEANED)

        list(self._codecs.map(open_row, rows.open()))
        filled = rows.together_or_alone(decoded, fill)
        list(self._codecs.map(close_row, filled))
        return rows.table(data=data, mask=masks, removed=removed)


def _kept(objects: list[dict[str, Any]], size: tuple[int, int]) -> Mask:
    """The pixels of the things that stay, H x W."""
    return union_mask((Rle(*size, o["mask"].encode("ascii")) for o in objects if o["verdict"] == Verdict.KEEP), *size)
