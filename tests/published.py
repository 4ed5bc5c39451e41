"""A published output made of rows, for tests of what reads one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from occpipe.config import Config
from occpipe.ledger import write_part
from occpipe.schemas import PUBLISHED
from occpipe.stages.publish import publish
from occpipe.storage import open_store


def publish_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Publish rows, each with its missing columns empty, as `clean` would; returns the folder."""
    store = open_store(str(folder))
    filled = [{name: row.get(name) for name in PUBLISHED.names} for row in rows]
    write_part(store, 1, pa.Table.from_pylist(filled, schema=PUBLISHED))
    publish(store, Config(), [], str(folder.parent / "photos"))
    return folder


def scene_row(number: int, things: dict[str, float], stuff: dict[str, float]) -> dict[str, Any]:
    """An unchanged photo with things and stuff, each by its confidence."""
    objects = [
        {"label": label, "score": score, "area": 900, "mask": "", "verdict": "keep", "reason": "related"}
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
