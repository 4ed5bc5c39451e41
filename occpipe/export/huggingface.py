"""A folder that Hugging Face `datasets` loads: the written images, `metadata.parquet` beside them, and a data card.

The format: https://huggingface.co/docs/datasets/image_dataset#imagefolder. Images are copied as they are; a row of
`metadata.parquet` is the published row but for what only a run needs.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from occpipe.dataset.reader import Published
from occpipe.errors import StorageError
from occpipe.schemas import PUBLISHED
from occpipe.storage import is_safe_key, with_retries

COLUMNS = [
    *("image_id", "uri", "status", "width", "height", "mask_width", "mask_height"),
    *("objects", "stuff", "mask", "removed", "output_sha256"),
]
_THREADS = 16
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_huggingface(published: Published, folder: Path) -> int:
    """Copy the written images, with `metadata.parquet` and a README.md; returns their number.

    Raises OSError for an image that is no longer there.
    """
    schema = pa.schema([pa.field("file_name", pa.string()), *(PUBLISHED.field(name) for name in COLUMNS)])
    images = 0
    with (
        pq.ParquetWriter(folder / "metadata.parquet", schema, compression="zstd") as writer,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for rows in published.batches(["output", *COLUMNS]):
            rows = rows.filter(pc.is_valid(rows.column("output"))).select(["output", *COLUMNS])
            for _ in pool.map(lambda key: _copy(published, folder, key), rows.column("output").to_pylist()):
                images += 1
            writer.write_table(rows.rename_columns(["file_name", *COLUMNS]).cast(schema))
    (folder / "README.md").write_text("".join(card(published.manifest, images)), encoding="utf-8")
    return images


def card(manifest: dict[str, Any], images: int) -> Iterator[str]:
    """The data card: what is in it, how it was made, with which weights under which licences."""
    size = next((name for most, name in _SIZES if images < most), "n>1M")
    head = {
        "pretty_name": "Photos cleaned by occpipe",
        "tags": ["image", "occpipe"],
        "size_categories": [size],
        # or `datasets` takes the folders train, val and test in the names of the photos for its splits, and drops the rest
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "**"}]}],
    }
    yield f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# Photos cleaned by occpipe\n\n"
    yield f"{images} images, of which things were removed that do not relate to the scene. A row has the things of the\n"
    yield "photo with verdict, reason and relation score, and the masks as run-length counts in COCO's form, of\n"
    yield "mask_height x mask_width pixels.\n\n"
    yield "The licence of the photos is not known to occpipe: state it here before you publish them.\n\n"
    yield from _table(("status", "images"), manifest["status"].items())
    yield from _table(("removed", "things"), sorted(manifest["removed"].items(), key=lambda item: -item[1]))
    weights = ([model.get(key) for key in ("name", "licence", "sha256")] for model in manifest["models"])
    yield from _table(("weights", "licence", "sha256"), weights)
    yield from _table(("made with", "version"), manifest["versions"].items())
    config = yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=False)
    yield "Config:\n\n" + "".join(f"    {line}\n" for line in config.splitlines())


def _table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    lines = [[_cell(value) for value in row] for row in rows]
    for line in [head, ["---"] * len(head), *lines] if lines else ():
        yield f"| {' | '.join(line)} |\n"
    yield "\n" if lines else ""


def _cell(value: object) -> str:
    """Text in a table of Markdown; class names may come from a stranger's model."""
    text = "" if value is None else html.escape(" ".join(str(value).split()))
    return "".join(f"\\{c}" if c in "\\`*_[]|" else c for c in text)


def _copy(published: Published, folder: Path, key: str) -> None:
    if not is_safe_key(key):
        raise StorageError(f"{published.uri}: {key!r} is no name of an image")
    target = folder / key
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(with_retries(lambda: published.store.read(key)))
