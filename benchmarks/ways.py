"""The programs that `throughput.py` compares occpipe with, each in a process of its own.

`sequential` is the program of the paper: one photo after the other, one model after the other. It inpaints the whole
picture, also where nothing is to be removed (its mask is then empty), and encodes and writes each anew. `loop` is what
a good engineer writes without a pipeline: one process, threads that decode the next batch and write the last one while
the models work, crops in batches, and bytes that are copied where nothing was removed. Both use the models, weights and
decisions of the config, and write the images and one Parquet file.
Run by throughput.py: python benchmarks/ways.py WAY PHOTOS OUTPUT CONFIG.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from occpipe.core.config import Config
from occpipe.core.masks import scale_up, union_mask
from occpipe.core.resources import cores
from occpipe.core.types import Image, Mask, SceneObject, Segmentation, Verdict
from occpipe.io.images import Header, ImageError, Limits, decode, decode_with_header, encode_like
from occpipe.models.loading import load_inpainter, load_relations, load_segmenter, pick_device, source_type
from occpipe.models.relations.decide import decide, removal_mask
from occpipe.stages.relate import object_row

BATCH = 8
GPU_BATCH = 32


class Models:
    """The three models of a config, loaded once, and what is decided with them."""

    def __init__(self, config: Config, workers: int = 1) -> None:
        self.config, self.limits = config, Limits(config.corpus.max_pixels, config.corpus.min_side)
        self.segmenter = load_segmenter(config, workers=workers)
        self.relations = load_relations(config.relations)
        self.inpainter = load_inpainter(config, workers=workers)
        self.mark = source_type(config)

    def decided(self, scene: Segmentation) -> tuple[tuple[SceneObject, ...], Mask | None]:
        """The things of a scene with verdicts, and the mask to fill."""
        things = decide(scene, self.relations, self.config.policy)
        return things, removal_mask(things, self.config.policy, self.config.inpainter)

    def kept(self, things: tuple[SceneObject, ...], mask: Mask) -> Mask:
        """The pixels of the things that stay."""
        return union_mask((o.segment.rle for o in things if o.verdict is Verdict.KEEP), *mask.shape)


def sequential(config: Config, photos: list[Path], output: Path) -> dict[str, float]:
    """The paper's way; also says how many seconds went into photos that nothing was removed from, after the verdict."""
    torch.set_num_threads(cores())
    models, rows, idle = Models(config), list[dict[str, Any]](), 0.0
    multiple = models.inpainter.model.multiple  # the original crops its picture to it, and loses the rest
    for photo in photos:
        data = photo.read_bytes()
        try:
            rgb = decode(data, models.limits)
        except ImageError:
            continue
        (scene,) = models.segmenter([rgb])
        things, mask = models.decided(scene)
        begun = time.perf_counter()
        hole = np.zeros(rgb.shape[:2], np.uint8) if mask is None else mask
        filled, (height, width) = rgb.copy(), (side // multiple * multiple for side in hole.shape)
        filled[:height, :width] = models.inpainter.model.fill(rgb[None, :height, :width], hole[None, :height, :width])[
            0
        ]
        (output / photo.name).write_bytes(encode_like(filled, data, models.limits, models.mark))
        idle += (time.perf_counter() - begun) * (mask is None)
        rows.append(row(photo, things, rgb.shape[:2]))
    write_rows(rows, output)
    return {"images": len(rows), "idle_s": idle}


def loop(config: Config, photos: list[Path], output: Path) -> dict[str, float]:
    """The good loop: on a CPU each core looks at a photo of its own, on a GPU batches go through the net."""
    threads = cores()
    on_gpu = pick_device(config.segmenter.device) != "cpu"
    torch.set_num_threads(threads)
    models, rows = Models(config, workers=1 if on_gpu else threads), list[dict[str, Any]]()
    side = config.segmenter.decode_side

    def read(photo: Path) -> tuple[Path, bytes, Header, Image] | None:
        data = photo.read_bytes()
        try:
            return photo, data, *decode_with_header(data, models.limits, side)
        except ImageError:
            return None

    def write(photo: Path, data: bytes, filled: Image | None = None) -> None:
        encoded = data if filled is None else encode_like(filled, data, models.limits, models.mark)
        (output / photo.name).write_bytes(encoded)

    written: list[Future[None]] = []
    with ThreadPoolExecutor(4) as readers, ThreadPoolExecutor(4) as writers:
        for batch in ahead(readers, read, photos, GPU_BATCH if on_gpu else BATCH):
            items = [item for item in batch if item]
            seen = models.segmenter([rgb for *_, rgb in items])
            scenes = [scene.resized(*rgb.shape[:2]) for scene, (*_, rgb) in zip(seen, items, strict=True)]
            to_fill: list[tuple[Path, bytes]] = []
            pending: list[tuple[Image, Mask, Mask]] = []
            for (photo, data, header, _), scene in zip(items, scenes, strict=True):
                size = header.height, header.width
                things, mask = models.decided(scene)
                rows.append(row(photo, things, size))
                if mask is None:
                    written.append(writers.submit(write, photo, data))
                else:
                    hole = scale_up(mask, *size)
                    to_fill.append((photo, data))
                    pending.append(
                        (decode(data, models.limits), hole, scale_up(models.kept(things, mask), *size) & (1 - hole))
                    )
            if pending:
                for (photo, data), filled in zip(
                    to_fill, models.inpainter.fill_many(*zip(*pending, strict=True)), strict=True
                ):
                    written.append(writers.submit(write, photo, data, filled))
        for future in written:
            future.result()
    write_rows(rows, output)
    return {"images": len(rows)}


def ahead(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: list[Any], size: int) -> Iterator[list[Any]]:
    """What `work` makes of batches of items, the next batch being made while one is looked at."""
    waiting: list[Future[Any]] = []
    for start in range(0, len(items), size):
        batch, waiting = waiting, [pool.submit(work, item) for item in items[start : start + size]]
        if batch:
            yield [future.result() for future in batch]
    yield [future.result() for future in waiting]


def row(photo: Path, things: tuple[SceneObject, ...], size: tuple[int, ...]) -> dict[str, Any]:
    """What is kept of a photo of height x width."""
    height, width = size
    return {"name": photo.name, "objects": [object_row(thing, height, width) for thing in things]}


def write_rows(rows: list[dict[str, Any]], output: Path) -> None:
    """One Parquet file."""
    pq.write_table(pa.Table.from_pylist(rows), output / "rows.parquet")


WAYS = {"sequential": sequential, "loop": loop}


def main() -> None:
    """Clean the photos in one way, and say how it went in `way.json` beside the images."""
    way, photos, output, config = sys.argv[1:]
    Path(output).mkdir(parents=True)
    settings = Config.model_validate_json(Path(config).read_bytes())
    report = WAYS[way](settings, sorted(Path(photos).iterdir()), Path(output))
    Path(output, "way.json").write_text(json.dumps(report))


if __name__ == "__main__" and len(sys.argv) > 1:
    main()
