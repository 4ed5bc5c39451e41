"""A published output made of rows, for tests of what reads one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image as Pil

from occpipe.config import Config
from occpipe.config_file import load_config
from occpipe.ledger import write_part
from occpipe.masks import Rle, union
from occpipe.published import Published
from occpipe.schemas import PUBLISHED
from occpipe.stages.discover import image_id
from occpipe.stages.publish import publish
from occpipe.stages.segment import segment_row
from occpipe.storage import open_store
from occpipe.types import Mask, Segment
from occpipe.versions import SCAN


def publish_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Publish rows, each with its missing columns empty, as `clean` would; returns the folder."""
    store = open_store(str(folder))
    filled = [{name: row.get(name) for name in PUBLISHED.names} for row in rows]
    write_part(store, 1, pa.Table.from_pylist(filled, schema=PUBLISHED))
    publish(store, Config(), [], str(folder.parent / "photos"))
    return folder


def scene_row(number: int, things: dict[str, float], stuff: dict[str, float]) -> dict[str, Any]:
    """An unchanged photo with things and stuff, each by its confidence."""
    mask = np.zeros((90, 100), np.uint8)
    mask[:30, :30] = 1
    seen = {"area": 900, "bbox": {"x": 0, "y": 0, "width": 30, "height": 30}, "mask": Rle.encode(mask).counts.decode()}
    objects = [
        {"label": label, "score": score, **seen, "verdict": "keep", "reason": "related"}
        for label, score in things.items()
    ]
    return {
        "image_id": number,
        "uri": f"{number}.jpg",
        "status": "unchanged",
        "width": 100,
        "height": 90,
        "objects": objects,
        "stuff": [{"label": label, "confidence": confidence} for label, confidence in stuff.items()],
        "config": "0" * 16,
    }


def seen_row(photos: Path | str, name: str, things: Sequence[tuple[str, Mask]]) -> dict[str, Any]:
    """What a scan knows of a photo, with things of a confidence of 0.9 and what it has decided for none of them."""
    store = open_store(str(photos))
    entry = store.find(name)
    assert entry is not None
    with Pil.open(io.BytesIO(store.read(name))) as picture:
        width, height = picture.size
    objects = []
    for label, mask in things:
        row = segment_row(Segment.from_mask(label, True, 0.9, mask))
        del row["is_thing"]
        objects.append(row | {"relation": None, "verdict": "keep", "reason": "no_context", "evidence": []})
    seen = {"image_id": image_id(name), "uri": name, "size": entry.size, "etag": entry.etag, "format": "JPEG"}
    seen |= {"status": "unchanged", "width": width, "height": height, "objects": objects, "removed": 0.0}
    return seen | {"stuff": [], "config": "0" * 16}


def publish_scan(folder: Path, photos: Path | str, rows: Sequence[dict[str, Any]], *settings: str) -> Published:
    """Publish rows as a scan of a folder of photos."""
    store = open_store(str(folder))
    write_part(store, 1, pa.Table.from_pylist([{n: row.get(n) for n in PUBLISHED.names} for row in rows], PUBLISHED))
    publish(store, load_config("local", settings), [], open_store(str(photos)).uri, origin=SCAN)
    return Published(str(folder))


def removed_row(
    number: int, things: dict[str, float], stuff: dict[str, float], *, share: float, cut: float = 0.117
) -> dict[str, Any]:
    """A photo of 100 x 90 from which the things go whose relation is below the cut; each has a mask of its own."""
    objects = []
    for place, (label, relation) in enumerate(things.items()):
        mask = np.zeros((90, 100), np.uint8)
        mask[5 : 25 + number, 3 + 20 * place : 15 + 20 * place] = 1
        segment = Segment.from_mask(label, True, 0.9, mask)
        verdict, reason = ("remove", "unrelated") if relation < cut else ("keep", "related")
        evidence = [{"context": name, "relation": relation} for name in stuff]
        objects.append(
            {
                "label": label,
                "score": segment.score,
                "area": segment.area,
                "bbox": segment.bbox._asdict(),
                "mask": segment.rle.counts.decode("ascii"),
                "relation": relation,
                "verdict": verdict,
                "reason": reason,
                "evidence": evidence,
            }
        )
    gone = union(Rle(90, 100, item["mask"].encode("ascii")) for item in objects if item["verdict"] == "remove")
    assert gone is not None
    filled = {"mask": gone.counts.decode("ascii"), "removed": share, "output": f"images/{number}.jpg"}
    return scene_row(number, {}, stuff) | {"status": "cleaned", "objects": objects, **filled}
