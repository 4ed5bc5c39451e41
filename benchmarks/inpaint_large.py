"""A 12 MP photo with one hole of 8% of its area: time, peak memory and sharpness, in one run.

What bounds it: patches are searched for at up to 800 pixels a side, copied at full size, and the net sees 448 pixels; what
grows with the photo is the copying, some hundred bytes read for each of 1 M hole pixels. `--most SIDE` lets the model take
no more than so many pixels, so that its fill is given the photo's detail again.
Run: python benchmarks/inpaint_large.py [--model starter] [--most SIDE] [--threads 2] [--out FILE]
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pil

from occpipe.core.config_file import load_config
from occpipe.core.types import Image
from occpipe.models.loading import load_inpainter
from occpipe.training.holes import thing_hole
from occpipe.training.inpaint_evaluation import psnr, seam, sharpness

SIZE = (3000, 4000)
AREA = 0.08


def made_up_photo() -> Image:
    """A photo of 12 MP with detail at every scale: those of scikit-image side by side, and fine noise on top."""
    from skimage import data

    parts = [Pil.fromarray(getattr(data, n)()[..., :3]) for n in ("astronaut", "chelsea", "coffee", "rocket")]
    half = (SIZE[1] // 2, SIZE[0] // 2)
    large = [np.asarray(p.resize(half, Pil.Resampling.BICUBIC)) for p in parts]
    whole = np.concatenate([np.concatenate(large[:2], 1), np.concatenate(large[2:], 1)])
    rng = np.random.default_rng(0)
    for rows in np.split(np.arange(SIZE[0]), 20):  # by parts, so that the peak is the inpainter's
        noise = rng.normal(0, 6, (len(rows), SIZE[1], 1))
        whole[rows] = np.clip(whole[rows] + noise, 0, 255).astype(np.uint8)
    return whole


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--most", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    photo = made_up_photo()
    mask = thing_hole(np.random.default_rng(2), (photo.shape[0], photo.shape[1]), AREA)
    blanked = photo * (1 - mask)[..., None]
    inpainter = load_inpainter(load_config("local", [f"inpainter.model={options.model}"]))
    if options.most is not None:
        inpainter.model.max_side = options.most
    inpainter(blanked[:400, :400], np.eye(400, dtype=np.uint8))  # warm up
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    result = inpainter(blanked, mask)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ys, xs = np.nonzero(mask)
    size = f"{photo.shape[1]} x {photo.shape[0]}"
    print(f"{size}, hole of {np.ptp(xs) + 1} x {np.ptp(ys) + 1} px, {mask.mean():.1%} of the area")
    print(f"{options.model}: {seconds:.1f} s on {options.threads} threads, peak {peak:.0f} MB ({before:.0f} MB before)")
    sharp, step = sharpness(result, photo, mask), seam(result, photo, mask)
    print(f"psnr {psnr(result, photo, mask):.1f} dB, sharpness {sharp:.2f}, seam {step:.2f}")
    if options.out is not None:
        Pil.fromarray(result).save(options.out)


if __name__ == "__main__":
    main()
