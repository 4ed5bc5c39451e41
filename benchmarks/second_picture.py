"""CPU time of the check for a second picture on a file of about 3 MB: `python benchmarks/second_picture.py`."""

from __future__ import annotations

import io
import time
from statistics import median

import numpy as np
from PIL import Image as Pil
from PIL import ImageCms

from occpipe.io.images import check_no_other_picture, decode, encode_like
from occpipe.io.images.reasons import Limits

REPEATS = 21
OPTIONS = {"JPEG": {"quality": 80}, "WEBP": {"quality": 92, "method": 0}, "PNG": {}, "TIFF": {}, "BMP": {}}
SIDES = {"JPEG": 3600, "WEBP": 2700, "PNG": 1150, "TIFF": 1000, "BMP": 1000}


def main() -> None:
    """Print milliseconds of CPU for each format, of a picture with a colour profile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for fmt, side in SIDES.items():
        y, x = np.mgrid[0:side, 0:side]
        smooth = np.stack([x % 256, y % 256, (x + y) % 256], -1)
        noise = np.random.default_rng(0).integers(0, 24, smooth.shape)
        out = io.BytesIO()
        Pil.fromarray(((smooth + noise) % 256).astype(np.uint8)).save(out, fmt, icc_profile=profile, **OPTIONS[fmt])
        written = encode_like(decode(out.getvalue(), Limits()), out.getvalue(), Limits())
        times = []
        for _ in range(REPEATS):
            start = time.process_time()
            check_no_other_picture(written, fmt)
            times.append(1000 * (time.process_time() - start))
        print(f"{fmt}: {len(written) / 1e6:.1f} MB, {median(times):.2f} ms, least {min(times):.2f} ms")


if __name__ == "__main__":
    main()
