"""Composed scenes: a cut-out thing in a photo where label statistics say that it does not belong.

They measure the whole way from pixels to what is filled (`scene_evaluation`), and the decision is calibrated on them.
The thing takes 3 to 12% of the photo, lies clear of the photo's own things, and is half way matched in tone.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from occpipe.core.classes import token
from occpipe.core.types import Image, Mask
from occpipe.models.relations.benchmark import Npmi, read_labels
from occpipe.training.holes import Cutout, read_cutouts
from occpipe.training.inpaint_evaluation import paste_thing
from occpipe.training.segmentation_data import LabelSpace, Photo, read_photos

AREA = (0.03, 0.12)
STRANGE = -0.12
"""Mean NPMI with the classes of the photo below which a thing does not belong; of own things 6% lie below it."""
TONE = 0.5
MAX_OVERLAP = 0.15  # share of the pasted thing that may lie on things of the photo
MAX_PLACES = 12
MIN_CLASSES = 2  # known classes without which statistics say nothing of a photo
PRESENT = 0.005  # share of the pixels from which a class counts as shown
PROTECTED = "person"  # the policy keeps people, so none is pasted


@dataclass(frozen=True, slots=True)
class Scene:
    """A photo, H x W x 3, with a strange thing in it: its class, its outline, H x W, and the untouched photo."""

    name: str
    label: str
    image: Image
    outline: Mask
    untouched: Image

    @property
    def area(self) -> float:
        """Share of the image that the thing takes."""
        return float(self.outline.mean())


def read_statistics(things: Path, stuff: Path) -> Npmi:
    """Which classes occur together, from label lists as `evaluate relations` reads them."""
    return Npmi([image for image in read_labels(things, stuff) if image.things and image.stuff])


def compose(folder: Path, statistics: Npmi, count: int, *, held_out: bool | None, seed: int = 0) -> list[Scene]:
    """`count` scenes from labelled photos in the format of docs/segmenters.md; same folder and seed, same scenes.

    Photos come in turn, so each is the host of about as many scenes; the class of the thing is drawn before the thing,
    so rare classes come as often as common ones. Raises ValueError where the photos do not give so many scenes.
    """
    space = LabelSpace.read(folder)
    hosts = [(photo, classes_of(photo, space)) for photo in read_photos(folder, space, held_out=held_out)]
    hosts = [(photo, classes) for photo, classes in hosts if len(classes) >= MIN_CLASSES]
    cutouts: defaultdict[str, list[Cutout]] = defaultdict(list)
    for cutout in read_cutouts(folder, held_out=held_out):
        if cutout.label != PROTECTED:
            cutouts[cutout.label].append(cutout)
    rng = np.random.default_rng(seed)
    scenes: list[Scene] = []
    for turn in range(2 * count):
        if not hosts or len(scenes) == count:
            break
        if turn % len(hosts) == 0:
            order = rng.permutation(len(hosts))
        photo, classes = hosts[int(order[turn % len(hosts)])]
        strange = strange_labels(sorted(cutouts), classes, statistics)
        if strange:
            among = cutouts[strange[int(rng.integers(len(strange)))]]
            scene = _pasted(photo, among[int(rng.integers(len(among)))], space, rng)
            if scene is not None:
                scenes.append(scene)
    if len(scenes) < count:
        raise ValueError(f"{folder}: {len(hosts)} photos and {len(cutouts)} kinds of things give {len(scenes)} scenes")
    return scenes


def classes_of(photo: Photo, space: LabelSpace) -> list[str]:
    """The classes that a photo is known to show, by its pixels and its list."""
    counts = np.bincount(photo.label.ravel(), minlength=256)[: len(space.classes)]
    shown = [space.classes[i] for i in np.flatnonzero(counts > PRESENT * photo.label.size)]
    listed = [space.tags[i] for i in np.flatnonzero(photo.tags == 1)]
    return list(dict.fromkeys([*shown, *listed]))


def strange_labels(labels: Sequence[str], classes: Sequence[str], statistics: Npmi) -> list[str]:
    """Those of the labels that do not belong among the classes."""
    around = sorted({token(name) for name in classes} & statistics.rows.keys())
    known = [name for name in labels if token(name) in statistics.rows and token(name) not in around]
    return [name for name in known if around and statistics(token(name), around) < STRANGE]


def _pasted(photo: Photo, cutout: Cutout, space: LabelSpace, rng: np.random.Generator) -> Scene | None:
    things = np.isin(photo.label, np.flatnonzero(space.is_thing))
    area = float(np.exp(rng.uniform(*np.log(AREA))))
    for _ in range(MAX_PLACES):
        image, outline = paste_thing(photo.image, cutout, area, rng, tone=TONE)
        if things[outline > 0].mean() <= MAX_OVERLAP:
            big = AREA[0] * 0.9 <= outline.mean() <= AREA[1] * 1.1  # a small thing is not enlarged at will
            return Scene(photo.name, cutout.label, image, outline, photo.image) if big else None
    return None


def digest(scenes: Sequence[Scene]) -> str:
    """Hex digits that tell whether two runs saw the same scenes: names, classes and outlines."""
    said = hashlib.sha256()
    for scene in scenes:
        said.update(f"{scene.name} {scene.label} ".encode() + np.packbits(scene.outline).tobytes())
    return said.hexdigest()[:16]
