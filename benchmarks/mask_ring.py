"""What of a removed thing stays outside its mask, by how far the mask is grown.

Things that were cut out of labelled photos are pasted into others, so that what is behind them is known. The photo is
stored as JPEG, and read again. In a ring of 1% outside the grown mask it is compared with the photo without the thing. What
JPEG does to that photo in the same ring is printed beside it. Masks are the thing's own outline, and what the segmenter
sees of it.
Run: python benchmarks/mask_ring.py PHOTOS LABELLED [--count 24] [--min-pixels 0] [--quality 90]
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from occpipe.core.config_file import load_config
from occpipe.core.types import Image, Mask
from occpipe.io.images import Limits, decode
from occpipe.models.inpainters import MaskGrowth, grow_mask
from occpipe.models.loading import load_segmenter
from occpipe.models.segmenters import Segmenter
from occpipe.training.holes import Cutout, read_cutouts
from occpipe.training.inpaint_evaluation import AREA, MIN_SIDE, paste_thing, read_photo, spread
from occpipe.training.segmentation_data import is_held_out

FRACTIONS = (0.0, 0.004, 0.008, 0.012, 0.02, 0.03, 0.04, 0.06)
RING = 0.01
SEEN = 0.5  # share of the thing that a segmenter must see


def stored(image: Image, quality: int) -> Image:
    """An image after JPEG, with the usual half size of colours."""
    out = io.BytesIO()
    Pil.fromarray(image).save(out, format="JPEG", quality=quality)
    return decode(out.getvalue(), Limits())


def seen_mask(segmenter: Segmenter, image: Image, mask: Mask, label: str) -> Mask | None:
    """The segments of a class that lie on a mask; None where they do not cover half of it."""
    found: Mask = np.zeros_like(mask)
    for segment in segmenter([image])[0].segments:
        if segment.label == label and (segment.mask & mask).sum() > 0.5 * segment.mask.sum():
            found |= segment.mask
    return found if (found & mask).sum() > SEEN * mask.sum() else None


def scenes(
    paths: list[Path], cutouts: list[Cutout], segmenter: Segmenter, count: int, quality: int
) -> Iterator[tuple[Image, Image, dict[str, Mask]]]:
    """Photos, the same with a thing in it and stored, and that thing's masks; things that the segmenter sees."""
    rng = np.random.default_rng(3)
    made = 0
    for path in list(spread(paths, count)) * 4:
        photo = read_photo(path)
        if min(photo.shape[:2]) < MIN_SIDE:
            continue
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        pasted, outline = paste_thing(photo, cutout, float(rng.uniform(*AREA)), rng)
        given = stored(pasted, quality)
        seen = seen_mask(segmenter, given, outline, cutout.label)
        if seen is None:
            continue
        yield photo, given, {"outline": outline, "segmenter": seen}
        made += 1
        if made == count:
            return


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("labelled", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--min-pixels", type=int, default=0)
    parser.add_argument("--quality", type=int, default=90)
    wanted = parser.parse_args()
    paths = []
    for path in sorted(wanted.photos.glob("*.jpg")):
        with Pil.open(path) as file:
            if is_held_out(path.stem) and file.width * file.height >= wanted.min_pixels:
                paths.append(path)
    cutouts = read_cutouts(wanted.labelled, held_out=True, limit=1000)
    segmenter = load_segmenter(load_config("local"))
    table: dict[tuple[str, float], list[tuple[float, float, float]]] = defaultdict(list)
    for photo, given, masks in scenes(paths, cutouts, segmenter, wanted.count, wanted.quality):
        own, left = (np.abs(x.astype(int) - photo).mean(2) for x in (stored(photo, wanted.quality), given))
        for name, mask in masks.items():
            for fraction in FRACTIONS:
                grown = grow_mask(mask, MaskGrowth(fraction=fraction))
                ring = (grow_mask(grown, MaskGrowth(fraction=RING)) == 1) & (grown == 0)
                table[name, fraction].append((left[ring].mean(), own[ring].mean(), grown.mean()))
    print(f"{'mask':12}{'dilation':>10}{'difference':>12}{'JPEG alone':>12}{'median more':>13}{'area':>8}{'scenes':>8}")
    for (name, fraction), rows in table.items():
        difference, own, area = (float(np.mean(part)) for part in zip(*rows, strict=True))
        more = float(np.median([row[0] - row[1] for row in rows]))
        print(f"{name:12}{fraction:10.3f}{difference:12.2f}{own:12.2f}{more:13.2f}{area:8.3f}{len(rows):8}")


if __name__ == "__main__":
    main()
