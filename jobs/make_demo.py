"""Gather the demo's photos: those that scikit-image and scikit-learn carry, and scenes composed from them.

    python jobs/make_demo.py FOLDER

A composed scene is a photo with a cut-out of another one pasted where it does not belong, so that there is something to
remove: a cat that looks into a view of a palace, a cup of coffee on a lake. The same cat in a garage belongs there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image as Pil

Rgb = NDArray[np.uint8]

# Rough outlines, in pixels of the photo; GrabCut finds the edge near them.
_CAT = [(40, 0), (28, 60), (22, 112), (0, 150), (0, 299), (235, 299), (285, 262), (330, 215), (356, 150)]
_CAT += [(350, 80), (372, 30), (378, 0)]
_ASTRONAUT = [(155, 60), (170, 20), (220, 5), (280, 30), (300, 90), (280, 140), (310, 190), (350, 250), (365, 350)]
_ASTRONAUT += [(440, 340), (505, 410), (511, 511), (10, 511), (30, 330), (60, 270), (110, 230), (120, 170), (160, 140)]


def photos() -> Iterator[tuple[str, Rgb]]:
    """The photos as they come with the two packages, RGB uint8 H x W x 3."""
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        yield name, getattr(skimage.data, name)()[:, :, :3]
    yield "motorcycle", skimage.data.stereo_motorcycle()[0]
    for name in ("china", "flower"):
        yield name, sklearn.datasets.load_sample_image(f"{name}.jpg")


def scenes() -> Iterator[tuple[str, Rgb]]:
    """Photos with something pasted into them that does not belong there."""
    source = dict(photos())
    cat = cut_out(source["chelsea"], _outline(source["chelsea"], _CAT))
    cup = cut_out(source["coffee"], _saucer(source["coffee"]))
    astronaut = cut_out(source["astronaut"], _outline(source["astronaut"], _ASTRONAUT))
    tac = np.ascontiguousarray(cat[:, ::-1])
    yield "cat_at_the_palace", paste(source["china"], cat, height=150, left=0, bottom=0)
    yield "cat_in_the_trees", paste(source["china"], tac, height=150, left=463, bottom=0)
    yield "cat_in_the_garage", paste(source["motorcycle"], tac, height=170, left=540, bottom=0)
    yield "cat_at_the_launch", paste(source["rocket"], cat, height=140, left=0, bottom=0)
    yield "cup_on_the_lake", paste(source["china"], cup, height=90, left=420, bottom=110)
    yield "astronaut_at_the_palace", paste(source["china"], astronaut, height=210, left=0, bottom=0)


def cut_out(photo: Rgb, outline: NDArray[np.uint8]) -> Rgb:
    """RGBA, cropped to the thing: the outline, H x W in {0, 1}, drawn to the true edge by GrabCut (Rother et al., 2004)."""
    kernel = np.ones((13, 13), np.uint8)
    trimap = np.full(outline.shape, cv2.GC_BGD, np.uint8)
    trimap[cv2.dilate(outline, kernel) > 0] = cv2.GC_PR_BGD
    trimap[outline > 0] = cv2.GC_PR_FGD
    trimap[cv2.erode(outline, kernel, borderValue=1) > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)
    bgr = np.ascontiguousarray(photo[:, :, ::-1])
    cv2.grabCut(bgr, trimap, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    inside = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    inside = cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).astype(np.uint8)
    alpha = cv2.GaussianBlur(inside * np.uint8(255), (0, 0), 0.8)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.dstack([photo, alpha])[window]


def paste(photo: Rgb, thing: Rgb, *, height: int, left: int, bottom: int) -> Rgb:
    """The photo with an RGBA cut-out of this height, `left` and `bottom` pixels from its edges."""
    scene = Pil.fromarray(photo)
    cut = Pil.fromarray(thing)
    cut = cut.resize((round(cut.width * height / cut.height), height), Pil.Resampling.LANCZOS)
    scene.paste(cut, (left, scene.height - bottom - height), cut)
    return np.asarray(scene)


def _outline(photo: Rgb, points: list[tuple[int, int]]) -> NDArray[np.uint8]:
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.array(points, np.int32)], (1,))
    return mask


def _saucer(photo: Rgb) -> NDArray[np.uint8]:
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.ellipse(mask, (280, 228), (203, 158), 5, 0, 360, (1,), -1)
    cv2.ellipse(mask, (288, 110), (116, 95), 5, 0, 360, (1,), -1)
    return mask


def main() -> None:
    """Write all photos and scenes as JPEG."""
    parser = argparse.ArgumentParser(description="Gather the demo's photos.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    for kind, pictures in (("photos", photos()), ("scenes", scenes())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, rgb in pictures:
            Pil.fromarray(rgb).save(folder / kind / f"{name}.jpg", quality=92)
    print(f"{folder}: {len(list(folder.rglob('*.jpg')))} photos")


if __name__ == "__main__":
    main()
