"""Published rows in the formats of other tools, into a new local folder; rows are streamed, some hundred at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from occpipe.dataset.reader import Published
from occpipe.errors import StorageError
from occpipe.export.coco import write_coco
from occpipe.export.huggingface import write_huggingface
from occpipe.export.sidecar import write_sidecars

FORMATS: dict[str, Callable[[Published, Path], int]] = {
    "coco": write_coco,
    "hf": write_huggingface,
    "sidecar": write_sidecars,
}


def export(output_uri: str, folder: Path, kind: str) -> int:
    """Write what is published at `output_uri` into `folder` in one of `FORMATS`; returns how many images it has.

    Raises StorageError where nothing is published there, and where the folder is not empty: nothing is overwritten.
    """
    published = Published(output_uri)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder}: not an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    return FORMATS[kind](published, folder)
