"""A JSON for each image, `<uri>.json`: the published row with masks as COCO's run lengths, at the model's size.

A folder of a uri whose name ends in `.json` gets a `_` more, or `a.json/b.jpg` would be in the way of the file of `a`.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from occpipe.core.rows import Row
from occpipe.dataset.reader import Published
from occpipe.io.storage import Store, is_safe_key, with_retries

_THREADS = 16


def write_sidecars(published: Published, store: Store) -> int:
    """Write a file for each row whose uri is a safe path; returns how many."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(sum(pool.map(partial(_write, store), rows.to_pylist())) for rows in published.batches())


def _write(store: Store, row: Row) -> bool:
    key = name_of(row["uri"])
    if is_safe_key(key):
        with_retries(partial(store.write, key, (json.dumps(sidecar(row), indent=1) + "\n").encode()))
    return is_safe_key(key)


def name_of(uri: str) -> str:
    """The name of the file of a uri; no file has the name of another one, or of a folder."""
    return re.sub(r"(\.json_*)/", r"\1_/", uri) + ".json"


def sidecar(row: Row) -> dict[str, object]:
    """A row as plain values, its masks as pycocotools reads them."""
    size = [row["mask_height"], row["mask_width"]]

    def coco(counts: str | None) -> dict[str, object] | None:
        return {"size": size, "counts": counts} if counts else None

    objects = [item | {"mask": coco(item["mask"])} for item in row["objects"] or ()]
    return row | {"objects": objects, "mask": coco(row["mask"])}
