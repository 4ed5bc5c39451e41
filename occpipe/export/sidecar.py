"""A JSON beside each image: `sidecars/<uri>.json`, the published row with masks as COCO's run lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from occpipe.published import Published
from occpipe.storage import is_safe_key


def write_sidecars(published: Published, folder: Path) -> int:
    """Write a file for each row whose uri is a safe path; returns how many."""
    written = 0
    for row in published.rows():
        key = f"{row['uri']}.json"
        if is_safe_key(key):
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(sidecar(row), indent=1) + "\n", encoding="utf-8")
            written += 1
    return written


def sidecar(row: dict[str, Any]) -> dict[str, Any]:
    """A row as plain values, its masks as pycocotools reads them."""
    size = [row["height"], row["width"]]

    def coco(counts: str | None) -> dict[str, Any] | None:
        return {"size": size, "counts": counts} if counts else None

    objects = [item | {"mask": coco(item["mask"])} for item in row["objects"] or ()]
    return row | {"objects": objects, "mask": coco(row["mask"])}
