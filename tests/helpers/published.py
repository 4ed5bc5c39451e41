"""A published output made of rows, for tests of what reads one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image as Pil

from occpipe.core.config import Config, Policy
from occpipe.core.config_file import load_config
from occpipe.core.masks import Rle, union
from occpipe.core.schemas import MANIFEST, PUBLISHED
from occpipe.core.types import Mask, Reason, SceneObject, Segment, Verdict
from occpipe.dataset.layout import Layout, manifest_key
from occpipe.dataset.manifest import image_id
from occpipe.dataset.parquet import to_parquet
from occpipe.dataset.reader import Published
from occpipe.dataset.shards import commit_shard, write_part
from occpipe.dataset.sums import write_sums
from occpipe.dataset.versions import CLEAN, SCAN, Origin
from occpipe.io.storage import open_store
from occpipe.stages.relate import object_row


def publish_rows(folder: Path, rows: Sequence[dict[str, Any]], shard_images: int = 8_192) -> Path:
    """Publish rows, each with its missing columns empty, as `clean` with a cut of 0.117 would; returns the folder."""
    _publish(folder, rows, Config(policy=Policy(cut=0.117)), str(folder.parent / "photos"), CLEAN, shard_images)
    return folder


def _publish(
    folder: Path, rows: Sequence[dict[str, Any]], config: Config, root: str, origin: Origin, shard_images: int = 8_192
) -> None:
    store, layout = open_store(str(folder)), Layout()
    for shard, start in enumerate(range(0, len(rows), shard_images)):
        chosen = sorted(rows[start : start + shard_images], key=lambda row: str(row["uri"]))
        table = pa.Table.from_pylist([{name: row.get(name) for name in PUBLISHED.names} for row in chosen], PUBLISHED)
        store.write(manifest_key(shard), to_parquet(table.select(MANIFEST.names).cast(MANIFEST)))
        write_part(store, layout, 1, shard, 0, table)
        commit_shard(store, layout, shard)
    write_sums(store, config, [], root, layout, origin, listed=len(rows))


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
        "mask_width": 100,
        "mask_height": 90,
        "objects": objects,
        "stuff": [{"label": label, "confidence": confidence} for label, confidence in stuff.items()],
        "config": "0" * 16,
    }


def seen_row(photos: Path | str, name: str, things: Sequence[tuple[str, Mask]]) -> dict[str, Any]:
    """What a scan knows of a photo, with things of a confidence of 0.9 and what it has decided for none of them."""
    store = open_store(str(photos))
    entry = store.find(name)
    assert entry is not None
    data = store.read(name)
    with Pil.open(io.BytesIO(data)) as picture:
        width, height = picture.size
    segments = [Segment.from_mask(label, True, 0.9, mask) for label, mask in things]
    decided = [SceneObject(segment, None, Verdict.KEEP, Reason.NO_CONTEXT) for segment in segments]
    mask_height, mask_width = things[0][1].shape if things else (height, width)
    return {
        "image_id": image_id(name),
        "uri": name,
        "size": entry.size,
        "etag": entry.etag,
        "sha256": hashlib.sha256(data).hexdigest(),
        "format": "JPEG",
        "status": "unchanged",
        "width": width,
        "height": height,
        "mask_width": mask_width,
        "mask_height": mask_height,
        "objects": [object_row(item, height, width) for item in decided],
        "removed": 0.0,
        "stuff": [],
        "config": "0" * 16,
    }


def publish_scan(
    folder: Path, photos: Path | str, rows: Sequence[dict[str, Any]], *settings: str, shard_images: int = 8_192
) -> Published:
    """Publish rows as a scan of a folder of photos."""
    _publish(folder, rows, load_config("local", settings), open_store(str(photos)).uri, SCAN, shard_images)
    return Published(str(folder))


def removed_row(
    number: int, things: dict[str, float], stuff: dict[str, float], *, share: float, cut: float = 0.117
) -> dict[str, Any]:
    """A photo of 100 x 90 from which the things go whose relation is below the cut; each has a mask of its own."""
    objects: list[dict[str, Any]] = []
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
    gone = union(Rle(90, 100, str(item["mask"]).encode("ascii")) for item in objects if item["verdict"] == "remove")
    assert gone is not None
    filled = {"mask": gone.counts.decode("ascii"), "removed": share, "output": f"images/{number}.jpg"}
    return scene_row(number, {}, stuff) | {"status": "cleaned", "objects": objects, **filled}
