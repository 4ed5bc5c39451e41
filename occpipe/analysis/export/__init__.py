"""Published rows in the formats of other tools, in an empty folder of any store; a few shards are in memory at a time."""

from __future__ import annotations

from collections.abc import Callable

from occpipe.analysis.export.coco import write_coco
from occpipe.analysis.export.huggingface import write_huggingface
from occpipe.analysis.export.sidecar import write_sidecars
from occpipe.core.errors import StorageError
from occpipe.dataset.reader import Published
from occpipe.io.storage import Store, locate, open_store
from occpipe.io.storage.local import LocalStore

FORMATS: dict[str, Callable[[Published, Store], int]] = {
    "coco": write_coco,
    "hf": write_huggingface,
    "sidecar": write_sidecars,
}


def export(output_uri: str, dest_uri: str, kind: str) -> int:
    """Write what is published at `output_uri` below `dest_uri`.

    Args:
        output_uri: The output of a run: a folder or URI.
        dest_uri: A new or empty folder, or a URI below which there is nothing.
        kind: One of `FORMATS`.

    Returns:
        How many images it has.

    Raises:
        StorageError: Nothing is published there, or `dest_uri` is not empty: nothing is overwritten.
    """
    published, store = Published(output_uri), open_store(locate(dest_uri, "DEST"))
    is_file = isinstance(store, LocalStore) and store.root.is_file()
    if is_file or next(store.walk(), None) is not None:
        raise StorageError(f"{dest_uri}: not an empty folder")
    return FORMATS[kind](published, store)
