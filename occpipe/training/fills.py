"""Crops of photos with holes that patches have filled: what the starter inpainter's net learns to correct.

Holes lie where few pixels of labelled things are, as far as labels are there: what is behind a removed thing is background.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pil

from occpipe.core.types import Image, Mask
from occpipe.models.inpainters.patches import PatchInpainter
from occpipe.models.inpainters.starter import StarterInpainter
from occpipe.training.holes import box_hole, brush_hole, thing_hole
from occpipe.training.segmentation_data import THINGS, is_held_out

STORED_SIDE = 512
THING_SHARE = 0.2  # of a hole that may lie on things
TRIES = 6
COLOURS_EXCHANGED = 0.3
_PER_FILE = 128


@dataclass(frozen=True, slots=True)
class Scene:
    """A photo, H x W x 3, at most 512 pixels long, and where things are labelled in it, H x W, or None."""

    image: Image
    things: Mask | None


def _shrink(image: Image) -> Image:
    scale = STORED_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def read_scenes(photos: Path, labelled: Path | None, *, crop: int) -> list[Scene]:
    """The photos of a folder, and of a labelled photo folder, but for held-out ones and those smaller than a crop."""

    def plain(path: Path) -> Scene:
        with Pil.open(path) as photo:
            return Scene(_shrink(np.asarray(photo.convert("RGB"))), None)

    def with_labels(path: Path) -> Scene:
        image = plain(path).image
        label = np.asarray(Pil.open(path.parents[1] / "labels" / f"{path.stem}.png"))
        size = image.shape[1], image.shape[0]
        things = cv2.resize((label < THINGS).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        return Scene(image, np.asarray(things, np.uint8))

    with ThreadPoolExecutor(2) as pool:
        paths = [p for p in sorted(photos.glob("*.jpg")) if not is_held_out(p.stem)]
        scenes = list(pool.map(plain, paths))
        if labelled is not None:
            paths = [p for p in sorted((labelled / "images").glob("*.jpg")) if not is_held_out(p.stem)]
            scenes += list(pool.map(with_labels, paths))
    return [s for s in scenes if min(s.image.shape[:2]) >= crop]


class HoleSampler:
    """Crops with holes: `sampler(step, index)` gives the same image, S x S x 3, and hole, S x S, for the same seed."""

    def __init__(self, scenes: Sequence[Scene], outlines: Sequence[Mask], crop: int, seed: int) -> None:
        self.scenes, self.outlines, self.crop, self.seed = scenes, outlines, crop, seed

    @property
    def identity(self) -> dict[str, int]:
        """What decides about the crops: their size, the seed, and a checksum of photos and outlines."""
        checksum = 0
        for array in (*(s.image for s in self.scenes), *self.outlines):
            checksum = zlib.crc32(np.ascontiguousarray(array[::16, ::16]).tobytes(), checksum)
        return {"crop": self.crop, "seed": self.seed, "photos": len(self.scenes), "checksum": checksum}

    def __call__(self, step: int, index: int) -> tuple[Image, Mask]:
        rng = np.random.default_rng((self.seed, step, index))
        hole = self._hole(rng)
        for _ in range(TRIES):
            scene = self.scenes[int(rng.integers(len(self.scenes)))]
            height, width = scene.image.shape[:2]
            side = int(np.exp(rng.uniform(np.log(self.crop), np.log(min(height, width)))))
            y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
            box = np.s_[y : y + side, x : x + side]
            if scene.things is None:
                break
            things = cv2.resize(scene.things[box], (self.crop, self.crop), interpolation=cv2.INTER_NEAREST)
            if (things * hole).sum() <= THING_SHARE * hole.sum():
                break
        image = cv2.resize(scene.image[box], (self.crop, self.crop), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            image, hole = image[:, ::-1], hole[:, ::-1]
        bright = image.astype(np.float32) * rng.uniform(0.85, 1.15) + rng.uniform(-10, 10)
        return np.clip(bright, 0, 255).astype(np.uint8), np.ascontiguousarray(hole)

    def _hole(self, rng: np.random.Generator) -> Mask:
        shape, area = (self.crop, self.crop), float(rng.uniform(0.04, 0.25))
        match rng.choice(4, p=(0.45, 0.25, 0.15, 0.15)):
            case 0:
                return thing_hole(rng, shape, area, self.outlines)
            case 1:
                return thing_hole(rng, shape, area)
            case 2:
                return brush_hole(rng, shape, area)
            case _:
                return box_hole(rng, shape, area)


def make_fills(sampler: HoleSampler, count: int, folder: Path, start: Path | None = None) -> None:
    """Fill `count` crops with patches and keep them, 128 to a file; files that are there stay.

    `start` is the file of the net that guides the patches, as it will when it is trained; without it nothing does.
    Raises ValueError where the folder was begun from other photos, with other settings or with another net.
    """
    folder.mkdir(parents=True, exist_ok=True)
    net = None if start is None else zlib.crc32(start.read_bytes())
    made_of = json.dumps(sampler.identity | {"count": count, "net": net})
    note = folder / "made_of.json"
    if note.exists() and note.read_text() != made_of:
        raise ValueError(f"{folder} holds crops of other photos, or of another count, size, seed or net")
    note.write_text(made_of)
    # without the net's last correction, which is what it is to learn
    patches = PatchInpainter() if start is None else StarterInpainter(start).patches
    for first in range(0, count, _PER_FILE):
        path = folder / f"{first:08}.npz"
        if path.exists():
            continue
        pairs = [sampler(0, first + i) for i in range(min(_PER_FILE, count - first))]
        images, holes = np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
        partial = folder / "partial.npz"
        np.savez(partial, images=images, holes=holes, fills=patches.fill(images, holes))
        partial.replace(path)
        print(f"filled {first + len(pairs)} of {count}", flush=True)


class FillSampler:
    """Crops of S x S with a part of the hole, out of those that `make_fills` has filled.

    They are mirrored, of another brightness and, some, with their colours exchanged, all at random. S may be at most the
    side of those crops; they should be larger, so that S x S can be taken here or there.
    """

    def __init__(self, folder: Path, crop: int, seed: int) -> None:
        files = sorted(folder.glob("[0-9]*.npz"))
        parts = [np.load(f) for f in files]
        self.images, self.holes, self.fills = (
            np.concatenate([p[name] for p in parts]) for name in ("images", "holes", "fills")
        )
        self.crop, self.seed = crop, seed

    def __call__(self, step: int, index: int) -> tuple[Image, Mask, Image]:
        """The true crop, S x S x 3, the hole, S x S, and the crop as filled by patches."""
        rng = np.random.default_rng((self.seed, step, index))
        i = int(rng.integers(len(self.images)))
        inside = np.argwhere(self.holes[i])
        corner = inside[int(rng.integers(len(inside)))] - rng.integers(self.crop // 4, 3 * self.crop // 4, 2)
        y, x = np.clip(corner, 0, self.images.shape[1] - self.crop)
        box = np.s_[i, y : y + self.crop, x : x + self.crop]
        image, hole, fill = self.images[box], self.holes[box], self.fills[box]
        if rng.random() < 0.5:
            image, hole, fill = image[:, ::-1], hole[:, ::-1], fill[:, ::-1]
        if rng.random() < COLOURS_EXCHANGED:
            colours = rng.permutation(3)
            image, fill = image[..., colours], fill[..., colours]
        gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-16, 16)
        image, fill = (np.clip(x * gain + offset, 0, 255).astype(np.uint8) for x in (image, fill))
        return image, np.ascontiguousarray(hole), fill
