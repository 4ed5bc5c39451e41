"""COCO's JSON: `objects.json`, all things with what was decided for them, and `removals.json`, what was filled.

The format: https://cocodataset.org/#format-data. Masks are compressed run lengths, as pycocotools reads them, scaled up to
the size of the image; areas and boxes are those of the scaled masks. A category has its COCO id where its name is COCO's.
`file_name` is relative to the input: things that went are seen in its photos only. Ids of images count from 1, for readers
that hold numbers as doubles; the `image_id` of the rows comes along as text.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from occpipe import __version__
from occpipe.classes import coco_stuff_class
from occpipe.dataset.reader import Published
from occpipe.masks import Rle, rescale_rle

COLUMNS = [
    *("image_id", "uri", "status", "width", "height", "mask_width", "mask_height"),
    *("objects", "mask", "removed", "output"),
]
FIRST_OWN_ID = 1001
"""The first id of a class that COCO does not know."""


def write_coco(published: Published, folder: Path) -> int:
    """Write `objects.json` and `removals.json`; returns the number of images. Rows without a size are left out."""
    info = {
        "description": "occpipe: things, verdicts and reasons",
        "version": __version__,
        "input": published.manifest["input"],
        "output": published.uri,
    }
    categories = Categories()
    number = 0
    with _CocoFile(folder / "objects.json", info) as objects, _CocoFile(folder / "removals.json", info) as removals:
        for row in published.rows(COLUMNS):
            if row["width"] is None or row["height"] is None:
                continue
            number += 1
            image = _image(number, row)
            objects.image(image)
            for place, item in enumerate(row["objects"] or ()):
                objects.annotation(number, _thing(item, place, row, categories))
            if row["mask"]:
                removals.image(image)
                removals.annotation(number, {"category_id": 1, **_region(row["mask"], row)})
        objects.categories = list(categories)
        removals.categories = [{"id": 1, "name": "removed", "supercategory": "removed"}]
    return number


class Categories:
    """The categories of the names so far: COCO's id where the name is COCO's, and not taken by another spelling of it."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        if name not in self._ids:
            known, taken = coco_stuff_class(name), set(self._ids.values())
            own = max([FIRST_OWN_ID - 1, *taken]) + 1
            self._ids[name] = own if known is None or known.id in taken else known.id
        return self._ids[name]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for name, number in sorted(self._ids.items(), key=lambda item: item[1]):
            yield {"id": number, "name": name, "supercategory": "thing"}


def _image(number: int, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": row["uri"],
        "width": row["width"],
        "height": row["height"],
        "image_id": str(row["image_id"]),
        "status": row["status"],
        "removed": row["removed"],
        "cleaned_file_name": row["output"],
    }


def _thing(item: dict[str, Any], place: int, row: dict[str, Any], categories: Categories) -> dict[str, Any]:
    """A thing; its `segmentation` and box are those of its mask, `object` is its place in the row."""
    return {
        "category_id": categories[item["label"]],
        **_region(item["mask"], row),
        "score": item["score"],
        "relation": item["relation"],
        "verdict": item["verdict"],
        "reason": item["reason"],
        "object": place,
    }


def _region(counts: str, row: dict[str, Any]) -> dict[str, Any]:
    seen = Rle(row["mask_height"], row["mask_width"], counts.encode("ascii"))
    rle = rescale_rle(seen, row["height"], row["width"])
    segmentation = {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")}
    return {"segmentation": segmentation, "area": rle.area, "bbox": list(rle.bbox), "iscrowd": 0}


class _CocoFile:
    """A file of COCO's JSON, written as its images come; annotations wait in a file of their own until the end."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.categories: list[dict[str, Any]] = []
        self._path, self._info = path, info
        self._images = self._annotations = 0

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8")
        self._later = tempfile.TemporaryFile("w+", encoding="utf-8", dir=self._path.parent)
        self._file.write(f'{{"info": {json.dumps(self._info)},\n"licenses": [],\n"images": [')
        return self

    def image(self, image: dict[str, Any]) -> None:
        self._file.write((",\n" if self._images else "\n") + json.dumps(image))
        self._images += 1

    def annotation(self, image: int, values: dict[str, Any]) -> None:
        self._annotations += 1
        line = json.dumps({"id": self._annotations, "image_id": image, **values})
        self._later.write((",\n" if self._annotations > 1 else "\n") + line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file, self._later:
            if error is None:
                self._file.write('],\n"annotations": [')
                self._later.seek(0)
                shutil.copyfileobj(self._later, self._file)
                self._file.write(f'],\n"categories": {json.dumps(self.categories)}}}\n')
