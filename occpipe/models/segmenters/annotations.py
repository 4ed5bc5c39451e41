"""`coco:URI`: things and stuff from annotations of the user's, instances or panoptic; no network is loaded for things.

Where the files know no stuff, a tagger gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from occpipe.core.access import FROM_ENVIRONMENT, Access
from occpipe.core.masks import Rle, rescale_rle
from occpipe.core.types import Image, Segment, Segmentation
from occpipe.io.images import ImageError, ImageReason, Limits
from occpipe.io.images.labels import decode_numbers
from occpipe.io.storage import Store, is_safe_key, locate, open_store, split_name, split_pattern, with_retries
from occpipe.models.segmenters import UNNAMED, Photo, Segmenter
from occpipe.models.segmenters.annotation_index import LabelledImage, cache_folder, open_index

THREADS = 8
MAX_POINTS = 100_000
"""Corners of one polygon."""


class Annotations:
    """Reads what annotations say of each image.

    Args:
        place: A file (.json of COCO or LVIS, or .parquet), a pattern of files or a folder of them, in any store.
        access: How the store is reached.
        limits: The limits on what is decoded.
        tagger: Gives the stuff of photos where the annotations know none.
        folder: Where the index is kept; see `annotation_index`.
    """

    def __init__(
        self,
        place: str,
        *,
        access: Access = FROM_ENVIRONMENT,
        limits: Limits | None = None,
        tagger: Callable[[], Segmenter] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._store, name = _store_and_name(place, access)
        self._store.check_readable()
        self.index = open_index(self._store, name, folder or cache_folder())
        self._limits = replace(limits or Limits(), min_side=1)
        self._tagger = tagger() if tagger and not self.index.has_stuff else None
        self._threads = ThreadPoolExecutor(THREADS)

    def __call__(self, images: Sequence[Image]) -> list[Segmentation]:  # noqa: ARG002 - they have no names
        raise UNNAMED

    def segment_named(self, photos: Sequence[Photo]) -> list[Segmentation | Exception]:
        """Things and stuff of each photo, at the size of its pixels."""
        scenes = list(self._threads.map(self._attempt, photos))
        if self._tagger is None:
            return scenes
        waiting = {index: scene for index, scene in enumerate(scenes) if isinstance(scene, Segmentation)}
        tags = self._tagger([photos[index].pixels for index in waiting])
        for (index, scene), tag in zip(waiting.items(), tags, strict=True):
            scenes[index] = replace(scene, stuff=tag.stuff)
        return scenes

    def _attempt(self, photo: Photo) -> Segmentation | Exception:
        try:
            return self._scene(photo)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
            return ImageError(ImageReason.LABEL_BROKEN, f"its annotation: {type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - it closes the row of this image, and no other one
            return error

    def _scene(self, photo: Photo) -> Segmentation:
        labelled = self.index.find(photo.uri)
        if not labelled:
            raise ImageError(ImageReason.NO_LABEL, "no annotation names this image")
        size = photo.pixels.shape[0], photo.pixels.shape[1]
        segments: list[Segment] = []
        stuff: dict[str, float] = {}
        for image in labelled:
            annotated = _annotated_size(image, photo)
            pictures: dict[str, NDArray[np.uint32]] = {}
            for category, body in image.annotations:
                score = float(body.get("score") or 1.0)
                if category.is_thing is False:
                    stuff[category.name] = max(score, stuff.get(category.name, 0.0))
                elif category.is_thing:
                    if "png" in body:
                        rle = self._panoptic_part(image, body, pictures, annotated)
                    else:
                        rle = _rle(body, annotated, size)
                    segment = Segment.from_rle(category.name, True, score, rescale_rle(rle, *size))
                    segments += [segment] if segment.area else []
        return Segmentation(*size, tuple(segments), stuff)

    def _panoptic_part(
        self, image: LabelledImage, body: dict[str, Any], pictures: dict[str, NDArray[np.uint32]], size: tuple[int, int]
    ) -> Rle:
        """One segment of a panoptic PNG, which lies in a folder that is named as the JSON file is."""
        key = f"{image.key.removesuffix('.json')}/{body['png']}"
        if key not in pictures:
            pictures[key] = self._picture(key)
            if pictures[key].shape != size:
                raise ValueError(f"{key} has {pictures[key].shape} pixels, and its image {size}")
        return Rle.encode((pictures[key] == int(body["id"])).astype(np.uint8))

    def _picture(self, key: str) -> NDArray[np.uint32]:
        if not is_safe_key(key):
            raise ValueError(f"the name of its picture could leave the folder: {key!r}")
        try:
            data = with_retries(lambda: self._store.read(key, 64_000_000))
            return decode_numbers(data, self._limits)
        except (FileNotFoundError, ImageError) as error:
            raise ValueError(f"{key}: {error}") from error


def _store_and_name(place: str, access: Access) -> tuple[Store, str]:
    """The store of the annotations, and the name of a file, a pattern or a folder in it."""
    root, pattern = split_pattern(place)
    if pattern:
        return open_store(root, access), pattern
    folder, name = split_name(locate(place, "segmenter.model"))
    return open_store(folder, access), name


def _annotated_size(image: LabelledImage, photo: Photo) -> tuple[int, int]:
    """The size at which an image was annotated: that of the photo, or one with its ratio of sides."""
    height, width = image.height or photo.height, image.width or photo.width
    drift = min(abs(width - height * photo.width / photo.height), abs(height - width * photo.height / photo.width))
    if min(height, width) < 1 or drift > 1:
        sizes = f"{width} x {height} pixels, and the image {photo.width} x {photo.height}"
        raise ImageError(ImageReason.LABEL_SIZE, f"it was annotated with {sizes}")
    return height, width


def _rle(body: dict[str, Any], annotated: tuple[int, int], size: tuple[int, int]) -> Rle:
    """The mask of an annotation: run lengths at the size that was annotated, polygons and boxes at `size`."""
    code = body.get("segmentation")
    if isinstance(code, dict):
        if tuple(code["size"]) != annotated:
            raise ValueError(f"run lengths of {code['size']}, in an image of {[*annotated]}")
        return _checked(code["counts"], annotated)
    if not code:
        left, top, width, height = (float(value) for value in body["bbox"])
        code = [[left, top, left + width, top, left + width, top + height, left, top + height]]
    scale = np.array([size[1] / annotated[1], size[0] / annotated[0]])
    limit = np.array([size[1], size[0]])
    polygons = []
    for polygon in code:
        if not 6 <= len(polygon) <= MAX_POINTS or len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers")
        points = np.asarray(polygon, np.float64).reshape(-1, 2) * scale
        if not np.isfinite(points).all():
            raise ValueError("a polygon with a number that is none")
        polygons.append(points.clip(0, limit).ravel().tolist())
    return _of_coco(coco_mask.merge(coco_mask.frPyObjects(polygons, *size)))


def _checked(counts: object, size: tuple[int, int]) -> Rle:
    """Run lengths, compressed or as numbers, that are those of such a mask."""
    if isinstance(counts, list):
        runs = np.asarray(counts, np.int64)
        if runs.min(initial=0) < 0 or runs.sum() != size[0] * size[1]:
            raise ValueError(f"run lengths of other than {size[0]} x {size[1]} pixels")
        return _of_coco(coco_mask.frPyObjects({"size": [*size], "counts": runs.tolist()}, *size))
    rle = Rle(*size, counts if isinstance(counts, bytes) else str(counts).encode("ascii"))
    rle.check()
    return rle


def _of_coco(code: dict[str, Any]) -> Rle:
    return Rle(code["size"][0], code["size"][1], code["counts"])
