"""CPU time of a photo in the segment actor and in `load`, by size of the source; the model takes no time.

The GPU waits for what is serial in its actor: padding, the columns of Arrow, Python. Threads compute run lengths
beside the next forward pass, so they count in the whole only. What runs on the device, forward pass and merging, is left
out of both, and printed by itself: on a CPU it is the merging. The model is an EoMT with 133 classes and 200 queries in
the shape of its input, and its answer is always the same: 8 things and 6 regions of stuff.
Run: python benchmarks/gpu_actor.py [--photos 32] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image as Pil

from benchmarks.inpaint_large import made_up_photo
from benchmarks.shapes import EOMT_L, save_eomt
from benchmarks.stages import manifest_of
from occpipe.core.classes import coco_stuff
from occpipe.core.config_file import load_config
from occpipe.models.segmenters.huggingface import Batch, HuggingFaceSegmenter
from occpipe.models.segmenters.panoptic import Merged
from occpipe.stages.load import Load
from occpipe.stages.segment import SegmentStage

SIZES = {1: (1155, 866), 3: (2000, 1500), 12: (4000, 3000)}
"""Megapixels, and width and height."""
THINGS, STUFF, QUERIES, CLASSES, GRID = 8, 6, 200, 133, 160
TINY = EOMT_L | {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2}


class Answer:
    """In the place of the model: the same logits for each photo."""

    def __init__(self, is_thing: list[bool]) -> None:
        kinds = [is_thing.index(True) + n for n in range(THINGS)]
        kinds += [n for n, thing in enumerate(is_thing) if not thing][:STUFF]
        self._classes = torch.full((QUERIES, CLASSES + 1), -8.0)
        self._classes[:, -1] = 8
        self._masks = torch.full((QUERIES, GRID, GRID), -8.0)
        y, x = np.mgrid[0:GRID, 0:GRID] / GRID
        for query, kind in enumerate(kinds):
            self._classes[query, kind], self._classes[query, -1] = 8, -8
            if query < THINGS:  # blobs with a wavy edge, side by side
                angle = np.arctan2(y - 0.3, x - (query + 0.5) / THINGS)
                radius = 0.05 * (1 + 0.3 * np.sin(5 * angle + query))
                inside = (y - 0.3) ** 2 + (x - (query + 0.5) / THINGS) ** 2 < radius**2
            else:
                inside = (x * STUFF).astype(int) == query - THINGS
            self._masks[query][torch.from_numpy(inside)] = 6.0 if query < THINGS else 4.0

    def __call__(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        count = len(pixel_values)
        return SimpleNamespace(
            class_queries_logits=self._classes.expand(count, -1, -1),
            masks_queries_logits=self._masks.expand(count, -1, -1, -1),
        )


class Device:
    """Runs what a GPU would run, and adds up what that costs this process and this thread."""

    def __init__(self, segmenter: HuggingFaceSegmenter) -> None:
        self._forward, self.process_s, self.thread_s = segmenter.forward, 0.0, 0.0
        segmenter.forward = self  # type: ignore[method-assign]  # the segmenter calls no other

    def __call__(self, batch: Batch) -> list[Merged]:
        process, thread = time.process_time(), time.thread_time()
        merged = self._forward(batch)
        self.process_s += time.process_time() - process
        self.thread_s += time.thread_time() - thread
        return merged


def write_photos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Copies of one photo of that size."""
    out = io.BytesIO()
    Pil.fromarray(made_up_photo()).resize(size, Pil.Resampling.LANCZOS).save(out, "JPEG", quality=92)
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03d}.jpg").write_bytes(out.getvalue())
    return sorted(folder.iterdir())


def measure(photos: list[Path], segmenter: HuggingFaceSegmenter, device: Device) -> dict[str, float]:
    """Milliseconds of CPU a photo: of `load`, serial and in all in the actor, and of what a device does."""
    config = load_config("gpu", ["segmenter.device=cpu"])
    load = Load(str(photos[0].parent), config.corpus, config.segmenter.decode_side, 1)
    table = manifest_of(photos)
    load(table.slice(0, 2))
    start = time.process_time()
    loaded: pa.Table = load(table)
    load_s = time.process_time() - start
    stage = SegmentStage(config, segmenter)
    torch.set_num_threads(1)
    stage(loaded.slice(0, 8))
    before = device.process_s, device.thread_s
    process, thread = time.process_time(), time.thread_time()
    seen = stage(loaded)
    process, thread = time.process_time() - process, time.thread_time() - thread
    assert [len(some) for some in seen.column("segments").to_pylist()] == [THINGS] * len(photos)
    assert [len(some) for some in seen.column("stuff").to_pylist()] == [STUFF] * len(photos)
    on_device = device.process_s - before[0], device.thread_s - before[1]
    seconds = {
        "load": load_s,
        "serial": thread - on_device[1],
        "actor": process - on_device[0],
        "device": on_device[0],
    }
    return {name: 1000 * value / len(photos) for name, value in seconds.items()}


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-actor-") as folder:
        classes = sorted(coco_stuff(), key=lambda one: not one.is_thing)[:CLASSES]
        save_eomt(Path(folder, "eomt"), TINY, [one.name for one in classes])
        segmenter = HuggingFaceSegmenter(Path(folder, "eomt"))
        segmenter._model = Answer([one.is_thing for one in classes])
        device = Device(segmenter)
        for megapixels, size in SIZES.items():
            photos = write_photos(Path(folder, f"{megapixels}"), size, options.photos)
            figures = measure(photos, segmenter, device)
            print(f"{megapixels:2} MP: " + ", ".join(f"{name} {value:.1f} ms" for name, value in figures.items()))
            result |= {f"{name}_ms_{megapixels}mp": round(value, 2) for name, value in figures.items()}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
