"""COCO's JSON, two files a shard: `objects/`, all things with their verdicts, and `removals/`, the filled areas.

The format: https://cocodataset.org/#format-data. Masks are compressed run lengths, as pycocotools reads them, scaled up to
the size of the image; areas and boxes are those of the scaled masks. A category has its COCO id where its name is COCO's.
`file_name` is relative to the input: only its photos show removed things. Ids of images count from 1 over all
shards, for readers that hold numbers as doubles; the `image_id` of a row is text.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow.compute as pc

from occpipe import __version__
from occpipe.core.classes import coco_stuff_class
from occpipe.core.masks import Rle, rescale_rle
from occpipe.core.rows import ObjectRow, Row
from occpipe.dataset.layout import shard_name
from occpipe.dataset.reader import MANY_ROWS, Published, PublishedFile
from occpipe.io.storage import Store, with_retries

COLUMNS = [
    *("image_id", "uri", "status", "width", "height", "mask_width", "mask_height"),
    *("objects", "mask", "removed", "output"),
]
FIRST_OWN_ID = 1001
"""The first id of a class that COCO does not know."""
_LABEL = "objects.list.element.label"
_THREADS = 4
_REMOVED = [{"id": 1, "name": "removed", "supercategory": "removed"}]


def write_coco(published: Published, store: Store) -> int:
    """Write two files a shard; returns the number of images. Rows without a size are left out.

    All files have the same categories, so the names of the classes are read first.
    """
    info = {
        "description": "occpipe: things, verdicts and reasons",
        "version": __version__,
        "input": published.manifest["input"],
        "output": published.uri,
    }
    with ThreadPoolExecutor(_THREADS) as pool:
        labels = list(pool.map(partial(_labels, published), published.files))
        rows = itertools.accumulate((file.rows for file in published.files), initial=0)
        things = itertools.accumulate((names.total() for names in labels), initial=0)
        categories = category_ids(itertools.chain.from_iterable(labels))
        write = partial(_write_shard, published, store, info, categories)
        return sum(pool.map(write, published.files, rows, things))


def category_ids(names: Iterable[str]) -> dict[str, int]:
    """An id for each name: COCO's where the name is COCO's, and not taken by another spelling of it."""
    ids: dict[str, int] = {}
    own = itertools.count(FIRST_OWN_ID)
    for name in sorted(set(names)):
        coco = coco_stuff_class(name)
        ids[name] = next(own) if coco is None or coco.id in ids.values() else coco.id
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def _labels(published: Published, file: PublishedFile) -> Counter[str]:
    """How many things of each class a shard has."""
    batches = published.batches_of(file.name, [_LABEL], MANY_ROWS)
    things = (pc.list_flatten(rows.column("objects")) for rows in batches)
    return Counter(name for batch in things for name in pc.struct_field(batch, "label").to_pylist())


def _write_shard(
    published: Published,
    store: Store,
    info: Mapping[str, str],
    categories: Mapping[str, int],
    file: PublishedFile,
    rows_before: int,
    things_before: int,
) -> int:
    images: list[str] = []
    things: list[str] = []
    cleaned: list[str] = []
    removals: list[str] = []
    batches = published.batches_of(file.name, COLUMNS)
    rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
    thing_ids = itertools.count(things_before + 1)
    for number, row in enumerate(rows, rows_before + 1):
        if row["width"] is None or row["height"] is None:
            continue
        images.append(json.dumps(_image(number, row)))
        for place, item in enumerate(row["objects"] or ()):
            thing = {"id": next(thing_ids), "image_id": number, "category_id": categories[item["label"]]}
            things.append(json.dumps(thing | _thing(item, place, row)))
        if row["mask"]:
            cleaned.append(images[-1])
            removal = {"id": number, "image_id": number, "category_id": 1}
            removals.append(json.dumps(removal | _region(row["mask"], row)))
    kinds = [{"id": number, "name": name, "supercategory": "thing"} for name, number in categories.items()]
    name = f"{shard_name(file.shard)}.json"
    with_retries(partial(store.write, f"objects/{name}", _coco_file(info, images, things, kinds)))
    with_retries(partial(store.write, f"removals/{name}", _coco_file(info, cleaned, removals, _REMOVED)))
    return len(images)


def _coco_file(
    info: Mapping[str, str], images: list[str], annotations: list[str], categories: Sequence[Mapping[str, object]]
) -> bytes:
    """A file of COCO's JSON, an image or annotation a line."""
    head = f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": {json.dumps(categories)},\n"images": [\n'
    return "".join([head, ",\n".join(images), '],\n"annotations": [\n', ",\n".join(annotations), "]}\n"]).encode()


def _image(number: int, row: Row) -> dict[str, object]:
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


def _thing(item: ObjectRow, place: int, row: Row) -> dict[str, object]:
    """A thing; its `segmentation` and box are those of its mask, `object` is its place in the row."""
    decision = {name: item[name] for name in ("score", "relation", "verdict", "reason")}
    return _region(item["mask"], row) | decision | {"object": place}


def _region(counts: str, row: Row) -> dict[str, object]:
    mask = Rle(row["mask_height"], row["mask_width"], counts.encode("ascii"))
    rle = rescale_rle(mask, row["height"], row["width"])
    segmentation = {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")}
    return {"segmentation": segmentation, "area": rle.area, "bbox": list(rle.bbox), "iscrowd": 0}
