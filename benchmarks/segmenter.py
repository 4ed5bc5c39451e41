"""Time of the starter segmenter against its backbone alone, on the same photos in one run.

What bounds it: on a CPU the convolutions of EfficientNet-Lite0, 0.8 G multiply-adds at 512 px. On top come the decoder, the
tagger, and the way from logits to segments. The segmenter gets photos as the pipeline gives them: eight rows at a time, of
which each goes through the net alone on a CPU, on a core of its own (a row must not depend on its neighbours), and eight
together on a GPU.
Run: python benchmarks/segmenter.py [--photos DIR] [--side 512] [--count 40] [--threads 2] [--device cpu]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pil

from occpipe.core.types import Image
from occpipe.models.efficientnet import normalise
from occpipe.models.segmenters.starter import StarterSegmenter, input_shape, resize_image

ROUNDS = 5
ROWS = 8  # `placement.segment.batch_size`


def photos(folder: Path | None, count: int, side: int) -> list[Image]:
    """Photos of a folder, or those that scikit-image carries, with the longer side at `side` pixels."""
    if folder is None:
        from skimage import data

        images = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    else:
        images = [np.asarray(Pil.open(p).convert("RGB")) for p in sorted(folder.rglob("*.jpg"))[:count]]
    return [resize_image(np.ascontiguousarray(i[..., :3]), *scaled(i.shape[:2], side)) for i in images]


def scaled(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width with the longer side at `side`."""
    factor = side / max(shape[:2])
    return round(shape[0] * factor), round(shape[1] * factor)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = photos(options.photos, options.count, options.side)
    together = 1 if options.device == "cpu" else ROWS
    segmenter, alone = (
        StarterSegmenter(device=options.device, max_side=options.side, batch_size=together, workers=workers)
        for workers in (options.threads, 1)
    )

    @torch.inference_mode()
    def backbone(looks: tuple[float, ...]) -> None:
        for image in images:
            for look in looks:
                shape = input_shape(image.shape[:2], max(32, round(options.side * look)))
                batch = normalise(torch.from_numpy(resize_image(image, *shape))[None].to(options.device))
                segmenter.net.backbone(batch)
        if options.device != "cpu":
            torch.cuda.synchronize()

    work: dict[str, Callable[[], object]] = {
        "backbone, one look": lambda: backbone((1.0,)),
        "backbone, all looks": lambda: backbone(segmenter.looks),
        "segmenter": lambda: [segmenter(images[i : i + ROWS]) for i in range(0, len(images), ROWS)],
        "segmenter, a photo a call": lambda: [alone([image]) for image in images],
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(ROUNDS + 1):  # turn by turn, so that a busy moment hits all; the first warms up
        for name, run in work.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"{name:27} {len(images) / statistics.median(times):6.1f} photos/s (median of {ROUNDS})")
    for name in ("backbone, all looks", "backbone, one look"):
        ratios = [a / b for a, b in zip(seconds["segmenter"], seconds[name], strict=True)]
        print(f"segmenter over {name}: {statistics.median(ratios):.2f} times its time")


if __name__ == "__main__":
    main()
