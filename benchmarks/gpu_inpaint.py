"""CPU time of a 12 MP photo with a hole in the inpaint actor; the model takes no time.

The GPU waits for what goes on around its model: reading and decoding the photo in full, cutting crops, giving the fill the
photo's detail where the model took less than its size, the seam, composing, encoding. libjpeg's part, decoding and
encoding, is printed by itself and bounds the rest from below. The model takes crops as big-lama does, and blurs what is
around the hole.
Run: python benchmarks/gpu_inpaint.py [--photos 4] [--json FILE] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image as Pil

from benchmarks.inpaint_large import made_up_photo
from occpipe.core.config_file import load_config
from occpipe.core.masks import Rle
from occpipe.core.schemas import PIPELINE
from occpipe.io.images import Limits, decode, encode_like
from occpipe.models.inpainters import Inpainter
from occpipe.stages.inpaint import InpaintStage
from occpipe.training.holes import thing_hole

AREAS = (0.01, 0.05, 0.12, 0.20)
MASK_SIZE = (480, 640)


class NoModel:
    """Takes crops as big-lama does; its fill is a blur of what is known, 3 ms."""

    multiple = 8
    fixed_size: int | None = None
    max_side = 1536

    def fill(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill crops, B x H x W x 3."""
        return np.stack([_blurred(*pair) for pair in zip(images, masks, strict=True)])


def _blurred(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = 48, 48
    known = cv2.resize((1 - mask).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    colours = cv2.resize(image * (1 - mask)[..., None], size, interpolation=cv2.INTER_AREA).astype(np.float32)
    weight = cv2.GaussianBlur(known, (0, 0), 8) + 1e-3
    small = cv2.GaussianBlur(colours, (0, 0), 8) / weight[..., None]
    whole = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(whole, 0, 255).astype(np.uint8)


def rows(name: str, data: bytes, mask: NDArray[np.uint8], size: tuple[int, int], count: int) -> pa.Table:
    """Rows as `relate` leaves them."""
    row: dict[str, Any] = {"uri": name, "size": len(data), "etag": "", "sha256": hashlib.sha256(data).hexdigest()}
    row |= {"width": size[0], "height": size[1], "mask_width": MASK_SIZE[1], "mask_height": MASK_SIZE[0]}
    row |= {"objects": [], "mask": Rle.encode(mask).counts.decode("ascii"), "removed": float(mask.mean())}
    names = (*row, "status", "reason", "error")
    return pa.table({name: pa.array([row.get(name)] * count, PIPELINE[name]) for name in names})


def main() -> None:
    """Measure, print, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="gpu-inpaint-") as folder:
        picture = Pil.fromarray(made_up_photo())
        picture.save(Path(folder, "a.jpg"), quality=92)
        data = Path(folder, "a.jpg").read_bytes()
        start = time.process_time()
        encode_like(decode(data, Limits()), data, Limits())
        print(f"decoding and encoding alone: {time.process_time() - start:.2f} s")
        config = load_config("gpu", ["inpainter.device=cpu", "placement.inpaint.num_gpus=0"])
        stage = InpaintStage(config, folder, Inpainter(NoModel(), workers=2, calls=1))
        for area in AREAS:
            mask = thing_hole(np.random.default_rng(2), MASK_SIZE, area)
            table = rows("a.jpg", data, mask, picture.size, options.photos)
            start, began = time.process_time(), time.perf_counter()
            filled = stage(table)
            seconds = (time.process_time() - start) / options.photos
            wall = (time.perf_counter() - began) / options.photos
            assert filled.column("status").to_pylist() == ["cleaned"] * options.photos, filled.column("error")
            print(f"hole of {mask.mean():4.0%}: {seconds:.2f} s of CPU a photo, {wall:.2f} s of time", flush=True)
            figures[f"cpu_s_{round(100 * area)}_percent"] = round(seconds, 3)
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
                (options.out / f"{round(100 * area)}.jpg").write_bytes(filled.column("data")[0].as_py())
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
