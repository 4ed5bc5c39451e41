"""Batched crops against full images at batch 1, the same network on the same photos, side by side in one run.

The network stands in for a learned inpainter: gated like LaMa's layers in cost per pixel, with random weights, for time
does not depend on them; an archive given with --weights is run instead. Photos come from a folder or are made up.
Run: python benchmarks/inpaint_crops.py [--photos DIR] [--weights big-lama.pt] [--count 16] [--device cpu]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from occpipe.core.types import Image, Mask
from occpipe.models.inpainters import Inpainter
from occpipe.models.inpainters.torchscript import BigLamaInpainter

SIZE = (512, 768)


class StandIn(nn.Module):
    """An encoder, residual blocks at an eighth of the size, and a decoder: the shape of LaMa at a tenth of its cost."""

    def __init__(self, blocks: int = 6) -> None:
        super().__init__()
        down = [nn.Conv2d(4, 32, 7, 1, 3), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()]
        down += [nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU(), nn.Conv2d(128, 128, 3, 2, 1), nn.ReLU()]
        middle = [layer for _ in range(blocks) for layer in (nn.Conv2d(128, 128, 3, 1, 1), nn.ReLU())]
        up = [nn.Upsample(scale_factor=8), nn.Conv2d(128, 3, 3, 1, 1), nn.Sigmoid()]
        self.layers = nn.Sequential(*down, *middle, *up)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """The contract of big-lama."""
        filled: Tensor = self.layers(torch.cat([image * (1 - mask), mask], 1))
        return image * (1 - mask) + filled * mask


def photos(folder: Path | None, count: int) -> list[Image]:
    """Photos of 768 x 512; smoothed noise where no folder is given, since time does not depend on content."""
    height, width = SIZE
    if folder is None:
        rng = np.random.default_rng(0)
        noise = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]
        return [np.asarray(cv2.GaussianBlur(n, (9, 9), 0), np.uint8) for n in noise]
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".png"})
    picked = paths[:: max(1, len(paths) // count)][:count]
    return [np.array(PIL.Image.open(p).convert("RGB").resize((width, height)), np.uint8) for p in picked]


def holes(count: int) -> list[Mask]:
    """One ellipse a photo, 2-15% of the area."""
    height, width = SIZE
    rng = np.random.default_rng(1)
    masks = []
    for _ in range(count):
        area = rng.uniform(0.02, 0.15) * height * width
        ratio = rng.uniform(0.5, 2)
        a, b = (area * ratio / np.pi) ** 0.5, (area / ratio / np.pi) ** 0.5
        x, y = rng.uniform(a, width - a), rng.uniform(b, height - b)
        mask: NDArray[np.uint8] = np.zeros(SIZE, np.uint8)
        cv2.ellipse(mask, (int(x), int(y)), (int(a), int(b)), 0, 0, 360, 1, -1)
        masks.append(mask)
    return masks


def timed(label: str, run: object, count: int) -> float:
    """Images per second of a call, after one call to warm up."""
    assert callable(run)
    run()
    start = time.perf_counter()
    run()
    rate = count / (time.perf_counter() - start)
    print(f"{label:32s} {rate:8.2f} images/s")
    return rate


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.weights or Path(folder) / "stand-in.pt"
        if args.weights is None:
            torch.manual_seed(0)
            example = (torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64))
            torch.jit.save(torch.jit.trace(StandIn().eval(), example), path)  # type: ignore[no-untyped-call]  # torch's
        model = BigLamaInpainter(path, args.device)
    images, masks = photos(args.photos, args.count), holes(args.count)

    def full() -> None:
        for image, mask in zip(images, masks, strict=True):
            model.fill(image[None], mask[None])

    single, batched = Inpainter(model, batch_size=1), Inpainter(model, batch_size=args.batch_size)
    base = timed("full image, batch 1", full, args.count)
    alone = timed("crops, batch 1", lambda: [single(i, m) for i, m in zip(images, masks, strict=True)], args.count)
    rate = timed(f"crops, batches of {args.batch_size}", lambda: batched.fill_many(images, masks), args.count)
    print(f"crops / full: {alone / base:.2f}; batched crops / full: {rate / base:.2f}")


if __name__ == "__main__":
    main()
