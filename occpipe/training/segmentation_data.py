"""Photos with partial labels for the segmenter, their augmentation, and the fixed held-out split.

The folder is laid out as `index.jsonl` (name, set, classes, and for some `image_level_stuff`), `images/NAME.jpg`,
`labels/NAME.png` (COCO-Stuff index 0-181; 254 = none of the classes this set labels; 255 = ignore) and
`label_space.json` (the class names, and per set the indices it labels). Each set labels some classes only.
Photos are decoded once and stay in memory (1.3 GB for 3,900 photos), so that the CPU goes to the net.
"""

from __future__ import annotations

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

NONE = 254
IGNORE = 255
THINGS = 91  # COCO-Stuff: indices 0-90 are things, 91-181 stuff
HELD_OUT = 75  # photos in a thousand
CALIBRATION = 300  # of the sets below, those up to here are left to the calibration of the decision
CALIBRATION_SETS = ("coco2_",)
# fully labelled photos of many classes come up more often than portraits and video
SET_WEIGHT = {
    "voc": 1.0,
    "coco": 1.7,
    "coco2": 1.7,
    "pano": 2.5,
    "adestuff": 1.5,
    "msrc": 2.0,
    "camvid": 1.0,
    "ccp": 0.4,
}
PASTE = 0.6  # share of crops with a thing of another photo in them

# A photo whose list has the right-hand classes may show what the pixel sets call the left-hand class.
KIN: dict[str, tuple[str, ...]] = {
    "building-other": ("house", "skyscraper", "roof", "tent", "bridge", "wall-brick", "wall-stone", "wall-concrete"),
    "fence": ("railing", "cage", "net"),
    "grass": ("plant-other", "straw", "moss", "playingfield", "ground-other"),
    "mountain": ("hill", "rock", "snow"),
    "pavement": ("road", "platform", "floor-stone", "ground-other", "gravel", "stone"),
    "road": ("pavement", "dirt", "gravel", "ground-other"),
    "sky-other": ("clouds", "fog"),
    "tree": ("bush", "leaves", "branch", "plant-other"),
    "flower": ("plant-other", "leaves"),
    "water-other": ("sea", "river", "waterdrops"),
    "wall-other": ("wall-brick", "wall-stone", "wall-tile", "wall-wood", "wall-concrete", "wall-panel"),
    "floor-other": ("floor-wood", "floor-tile", "floor-stone", "floor-marble", "carpet", "rug", "mat"),
    "ceiling-other": ("ceiling-tile",),
    "window-other": ("window-blind", "curtain"),
    "cabinet": ("cupboard", "furniture-other", "shelf"),
    "dirt": ("gravel", "ground-other", "mud", "sand"),
    "rock": ("stone", "mountain", "hill"),
}


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The K classes that have pixels in some set, and the image-level stuff tags."""

    classes: tuple[str, ...]
    is_thing: tuple[bool, ...]
    tags: tuple[str, ...]
    lut: NDArray[np.uint8]
    """256 entries: COCO-Stuff index to 0..K-1; 254 and 255 stay."""
    supervised: dict[str, NDArray[np.bool_]]
    """Per set, K booleans: the classes it labels."""

    @classmethod
    def read(cls, folder: Path) -> LabelSpace:
        """Read `label_space.json` of a data folder; ValueError where there is none."""
        file = folder / "label_space.json"
        if not file.is_file():
            raise ValueError(f"{folder} has no {file.name}: docs/segmenters.md says how labelled photos are laid out")
        space = json.loads(file.read_text())
        names: list[str] = space["classes"]
        used = sorted({c for indices in space["supervised"].values() for c in indices})
        lut = np.full(256, IGNORE, np.uint8)
        lut[used], lut[NONE] = np.arange(len(used)), NONE
        supervised = {s: np.isin(used, indices) for s, indices in space["supervised"].items()}
        classes = tuple(names[c] for c in used)
        return cls(classes, tuple(c < THINGS for c in used), tuple(names[THINGS:]), lut, supervised)


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo, its labels and what is known of it as a whole."""

    name: str
    set: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    """H x W: class 0..K-1, NONE or IGNORE."""
    none_ok: NDArray[np.bool_]
    """K + 1 booleans: what a NONE pixel may be; the last is "other"."""
    tags: NDArray[np.int8]
    """T values: 1 present, 0 absent, -1 unknown."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A training crop."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    none_ok: NDArray[np.bool_]
    tags: NDArray[np.int8]


def is_held_out(name: str) -> bool:
    """Whether a photo belongs to the held-out split, by a hash of its name: the same in every run."""
    return zlib.crc32(name.encode()) % 1000 < HELD_OUT


def is_calibration(name: str) -> bool:
    """Whether a photo trains no net, because the decision is fitted on what the net sees in it."""
    return name.startswith(CALIBRATION_SETS) and HELD_OUT <= zlib.crc32(name.encode()) % 1000 < CALIBRATION


def _photo(folder: Path, row: dict[str, object], space: LabelSpace) -> Photo:
    name, group = str(row["name"]), str(row["set"])
    bgr = cv2.imread(str(folder / "images" / f"{name}.jpg"), cv2.IMREAD_COLOR)
    raw = cv2.imread(str(folder / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
    if bgr is None or raw is None:
        raise FileNotFoundError(f"{name}: no readable image or label under {folder}")
    label = space.lut[raw]
    labelled = space.supervised[group]
    none_ok = np.append(~labelled, True)
    tags = np.full(len(space.tags), -1, np.int8)
    listed = row.get("image_level_stuff")
    if isinstance(listed, list):
        tags[:] = 0
        tags[[i - THINGS for i in listed]] = 1
        present = {space.tags[i - THINGS] for i in listed}
        for k, c in enumerate(space.classes):
            if not space.is_thing[k] and not present.intersection((c, *KIN.get(c, ()))):
                none_ok[k] = False
    else:
        counts = np.bincount(label.ravel(), minlength=256)
        for i in np.flatnonzero(labelled & ~np.array(space.is_thing)).tolist():
            tags[space.tags.index(space.classes[i])] = int(counts[i] > 0.005 * label.size)
    return Photo(name, group, np.ascontiguousarray(bgr[:, :, ::-1]), label, none_ok, tags)


def read_photos(
    folder: Path, space: LabelSpace, *, held_out: bool | None = None, limit: int | None = None
) -> list[Photo]:
    """The photos of one side of the split, or of both, in the order of the index.

    `limit` takes an even spread of that many. Raises ValueError where the index is not as documented.
    """
    with (folder / "index.jsonl").open() as lines:
        try:
            rows = [json.loads(line) for line in lines]
            rows = [row for row in rows if held_out is None or is_held_out(row["name"]) == held_out]
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder / 'index.jsonl'}: not a line of JSON with a name for each photo") from error
    if limit is not None and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda row: _photo(folder, row, space), rows))


class Sampler:
    """Draws training crops; a crop depends on (seed, step, place in the batch) only, so that a resumed run repeats it.

    Photos of small sets and of rare classes come up more often (repeat factors of LVIS, Gupta et al., CVPR 2019).
    """

    def __init__(self, photos: list[Photo], space: LabelSpace, *, crop: int = 256, seed: int = 0) -> None:
        self.photos, self.crop, self.seed = photos, crop, seed
        k = len(space.classes)
        present = np.array([np.bincount(p.label.ravel(), minlength=256)[:k] > 0 for p in photos])
        share = present.mean(0)
        rarity = np.where(share > 0, np.sqrt(0.05 / np.maximum(share, 1e-9)), 1.0).clip(1.0, 3.0)
        factor = np.array([rarity[row].max(initial=1.0) for row in present])
        weight = factor * [SET_WEIGHT.get(p.set, 1.0) for p in photos]
        self.weight = weight / weight.sum()
        self.cumulative = np.cumsum(self.weight)
        is_thing = np.array(space.is_thing)
        self.donors = np.flatnonzero((present & is_thing).any(1))
        self.donor_weight = self.weight[self.donors] / self.weight[self.donors].sum() if len(self.donors) else None
        self.is_thing = np.append(is_thing, np.zeros(256 - k, bool))

    def _pick(self, rng: np.random.Generator) -> Photo:
        return self.photos[min(int(np.searchsorted(self.cumulative, rng.random())), len(self.photos) - 1)]

    def __call__(self, step: int, place: int) -> Sample:
        """The crop at a place of the batch of a step: image and label `crop` x `crop`."""
        rng = np.random.default_rng([self.seed, step, place])
        photo = self._pick(rng)
        image, label, covered = random_crop(photo, self.crop, rng)
        if len(self.donors) and rng.random() < PASTE:
            donor = self.photos[int(rng.choice(self.donors, p=self.donor_weight))]
            image, label = paste_thing(image, label, donor, self.is_thing, rng)
        tags = photo.tags if covered > 0.5 else np.full_like(photo.tags, -1)
        return Sample(jitter(image, rng), label, photo.none_ok, tags)


def random_crop(
    photo: Photo, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], float]:
    """A flipped, scaled (0.6 to 1.8 of the size that fits) and stretched square; with the share of the photo in it.

    What the photo does not reach is grey and ignored.
    """
    height, width = photo.label.shape
    scale = size / min(height, width) * float(np.exp(rng.uniform(np.log(0.6), np.log(1.8))))
    stretch = float(np.exp(rng.uniform(-0.15, 0.15)))
    # crop at source size first: resizing the whole photo would cost up to three times as much
    box_h, box_w = min(height, round(size / scale)), min(width, round(size / (scale * stretch)))
    y, x = int(rng.integers(height - box_h + 1)), int(rng.integers(width - box_w + 1))
    out_h, out_w = min(size, round(box_h * scale)), min(size, round(box_w * scale * stretch))
    part, marks = photo.image[y : y + box_h, x : x + box_w], photo.label[y : y + box_h, x : x + box_w]
    smaller = out_h < box_h
    pixels = cv2.resize(part, (out_w, out_h), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    classes = cv2.resize(marks, (out_w, out_h), interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        pixels, classes = pixels[:, ::-1], classes[:, ::-1]
    image = np.full((size, size, 3), 127, np.uint8)
    label = np.full((size, size), IGNORE, np.uint8)
    top, left = int(rng.integers(size - out_h + 1)), int(rng.integers(size - out_w + 1))
    image[top : top + out_h, left : left + out_w] = pixels
    label[top : top + out_h, left : left + out_w] = classes
    return image, label, box_h * box_w / (height * width)


def paste_thing(
    image: NDArray[np.uint8],
    label: NDArray[np.uint8],
    donor: Photo,
    is_thing: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paste one connected thing of another photo into a crop (copy-paste, Ghiasi et al., CVPR 2021).

    A thing of one class, without what it touches, so that it is learned apart from its usual context; its tone goes
    up to all the way to that of the place, because a strange tone would give it away.
    """
    present = np.unique(donor.label[is_thing[donor.label]])
    chosen = (donor.label == rng.choice(present)).astype(np.uint8) if len(present) else np.zeros_like(donor.label)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(chosen, connectivity=8)
    big = [i for i in range(1, len(stats)) if 0.01 < stats[i, cv2.CC_STAT_AREA] / donor.label.size < 0.5]
    if not big:
        return image, label
    part = int(rng.choice(big))
    x, y, w, h = (int(v) for v in stats[part, :4])
    size = image.shape[0]
    side = size * float(rng.uniform(0.15, 0.6))
    scale = side / max(w, h)
    to = (max(8, round(w * scale)), max(8, round(h * scale)))
    mask = cv2.resize((parts[y : y + h, x : x + w] == part).astype(np.float32), to, interpolation=cv2.INTER_LINEAR)
    thing = cv2.resize(donor.image[y : y + h, x : x + w], to, interpolation=cv2.INTER_LINEAR)
    marks = cv2.resize(donor.label[y : y + h, x : x + w], to, interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        mask, thing, marks = mask[:, ::-1], thing[:, ::-1], marks[:, ::-1]
    top, left = int(rng.integers(size - to[1] + 1)), int(rng.integers(size - to[0] + 1))
    image, label = image.copy(), label.copy()
    into, under = image[top : top + to[1], left : left + to[0]], label[top : top + to[1], left : left + to[0]]
    if (inside := mask > 0.5).any():
        shift = (into.mean((0, 1)) - thing[inside].mean(0)) * rng.uniform(0, 1)
        thing = np.clip(thing + shift, 0, 255)
    into[:] = (thing * mask[..., None] + into * (1 - mask[..., None])).astype(np.uint8)
    sure = mask > 0.5
    under[sure] = np.where(is_thing[marks[sure]], marks[sure], IGNORE)
    return image, label


def jitter(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change exposure, contrast, colour balance and saturation; now and then blur or grey."""
    x: NDArray[np.floating] = image.astype(np.float32)
    x = (x - 127) * rng.uniform(0.7, 1.3) + 127 + rng.uniform(-30, 30) + rng.uniform(-12, 12, 3)
    grey = x.mean(2, keepdims=True)
    x = grey + (x - grey) * (0.0 if rng.random() < 0.03 else rng.uniform(0.6, 1.4))
    if rng.random() < 0.1:
        x[:] = cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.5, 1.5)))
    clipped: NDArray[np.uint8] = np.clip(x, 0, 255).astype(np.uint8)
    return clipped
