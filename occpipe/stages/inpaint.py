"""inpaint: fill the mask, 1:1, in pool B; rows without a mask pass untouched. Bound by the model on the crops.

A photo is read again and decoded in full only here, and only where something is removed. It is encoded as its source
was. The masks of its row are scaled up to it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Thread
from typing import NamedTuple, Self

import pyarrow as pa

from occpipe.core.config import Config
from occpipe.core.masks import Rle, rle_decode, scale_down, scale_up, union_mask
from occpipe.core.rows import ObjectRow, Row
from occpipe.core.types import Image, Mask, Status, Verdict
from occpipe.io.images import Limits, decode, encode_with_losses
from occpipe.io.storage import store_of
from occpipe.models.inpainters import Inpainter
from occpipe.models.inpainters.shadow import cast_shadow
from occpipe.models.loading import load_inpainter, set_threads, source_type
from occpipe.models.relations.decide import is_protected
from occpipe.stages.load import read_same_image
from occpipe.stages.rows import Rows
from occpipe.stages.stage import PoolStage, Setup


class _Opened(NamedTuple):
    """A photo as bytes and as pixels, H x W x 3; what is filled and the things that stay, H x W each."""

    source: bytes
    image: Image
    hole: Mask
    things: Mask


class InpaintStage(PoolStage):
    """Adds the cleaned picture as `data` where a row has a `mask`, which grows where shadows are taken along.

    The model is loaded with the first photo that needs it, so that a corpus with nothing to remove does not wait for it;
    on a GPU it is loaded at once. `placement.inpaint.batch_size` photos are in memory in full at once. `model` takes
    images, holes and things that stay, each H x W.
    """

    READS = (
        *("uri", "size", "etag", "sha256", "width", "height", "mask_width", "mask_height"),
        *("objects", "mask", "removed", "status", "reason", "error"),
    )
    WRITES = ("data", "mask", "removed", "lost", "status", "reason", "error")  # a picture that is there already stays
    LOADS = ("inpainter",)

    def __init__(self, config: Config, root: str, inpainter: Inpainter | None = None) -> None:
        self._config, self._root, self._inpainter = config, root, inpainter
        self._limits = Limits(config.corpus.max_pixels, config.corpus.min_side)
        self._codecs = ThreadPoolExecutor(4)
        self._loading: Thread | None = None
        self.model: Callable[[list[Image], list[Mask], list[Mask]], list[Image]] = self._fill
        if config.placement.inpaint.num_gpus > 0:
            self._load()

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.config, setup.root)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = Rows(batch, "inpaint")
        columns = {name: rows.column(name) for name in ("data", "mask", "removed", "lost")}
        waiting, count = rows.open(), self._config.placement.inpaint.batch_size
        if self._loading is None:  # seconds of one core, while the segmenter is at work
            self._loading = Thread(target=import_module, args=("torch",), daemon=True)
            self._loading.start()
        if waiting:
            self._load()  # not within an attempt: without its weights the stage ends, and not one row after the other
        for start in range(0, len(waiting), count):
            self._clean(rows, waiting[start : start + count], columns)
        return rows.table(**columns)

    def _clean(self, rows: Rows, indices: list[int], columns: dict[str, list[object]]) -> None:
        opened: dict[int, _Opened] = {}

        def open_row(index: int) -> None:
            with rows.attempt(index):
                source = read_same_image(store_of(self._root), rows, index, self._config.corpus.max_bytes)
                image = decode(source, self._limits)
                row = rows.row(index)
                hole, things = self._masks(row)
                if self._config.inpainter.shadow:
                    shadow = cast_shadow(image, hole) & (1 - things)
                    hole |= shadow
                    small = _decoded(row)
                    small |= scale_down(shadow, *small.shape)
                    columns["mask"][index] = Rle.encode(small).counts.decode("ascii")
                    columns["removed"][index] = float(small.mean())
                opened[index] = _Opened(source, image, hole, things)

        def fill(part: list[int]) -> list[Image]:
            photos = [opened[index] for index in part]
            return self.model([p.image for p in photos], [p.hole for p in photos], [p.things for p in photos])

        def close_row(index: int) -> None:
            with rows.attempt(index):
                mark, policy = source_type(self._config), self._config.output.metadata
                source = opened[index].source
                data, lost = encode_with_losses(filled[index], source, self._limits, mark, policy)
                columns["data"][index], columns["lost"][index] = data, lost
                rows.finish(index, Status.CLEANED)

        list(self._codecs.map(open_row, indices))
        filled = rows.together_or_alone(opened, fill)
        list(self._codecs.map(close_row, filled))

    def _fill(self, images: list[Image], holes: list[Mask], things: list[Mask]) -> list[Image]:
        return self._load().fill_many(images, holes, things)

    def _load(self) -> Inpainter:
        if self._inpainter is None:
            threads = set_threads(self._config.placement.inpaint.threads)
            self._inpainter = load_inpainter(self._config, workers=threads)
        return self._inpainter

    def _masks(self, row: Row) -> tuple[Mask, Mask]:
        """The hole and the things that stay, at the size of the image. No hole reaches into a protected thing."""
        size, small = (row["height"], row["width"]), (row["mask_height"], row["mask_width"])
        kept = [item for item in row["objects"] or () if item["verdict"] == Verdict.KEEP]
        protected = [item for item in kept if is_protected(item["label"], self._config.policy)]
        hole = scale_up(_decoded(row), *size)
        if protected:
            hole &= 1 - scale_up(_union(protected, small), *size)
        return hole, scale_up(_union(kept, small), *size) & (1 - hole)


def _decoded(row: Row) -> Mask:
    """The removal mask of a row, which each open row has here."""
    return rle_decode(Rle(row["mask_height"], row["mask_width"], str(row["mask"]).encode("ascii")))


def _union(objects: list[ObjectRow], size: tuple[int, int]) -> Mask:
    return union_mask((Rle(*size, item["mask"].encode("ascii")) for item in objects), *size)
