"""A folder that Hugging Face `datasets` loads: images and `metadata.parquet` in a folder for each shard, and a data card.

The format: https://huggingface.co/docs/datasets/image_dataset#imagefolder. Images are copied as they are. Their names are
numbers: `datasets` would take folders called train, val and test for its splits, and pass over names that begin with a dot.
A row of `metadata.parquet` is the published row without the columns that only a run needs.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from occpipe.core.errors import StorageError
from occpipe.core.rows import Row
from occpipe.dataset.containers_commit import read_output
from occpipe.dataset.layout import shard_name
from occpipe.dataset.parquet import ROW_GROUP, to_parquet
from occpipe.dataset.reader import Published
from occpipe.dataset.sums import OutputSums
from occpipe.io.containers import split_uri
from occpipe.io.storage import Store, is_safe_key, with_retries

COLUMNS = [
    *("image_id", "uri", "status", "width", "height", "mask_width", "mask_height"),
    *("objects", "stuff", "mask", "removed", "output_sha256"),
]
_OUTPUT = ["output", "output_offset", "output_size", "etag", "format"]
_THREADS = 16
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_huggingface(published: Published, store: Store) -> int:
    """Copy the written images, with their rows and a README.md; returns their number.

    Raises OSError for an image that is no longer there.
    """
    images = 0
    tables = published.tables([*COLUMNS, *_OUTPUT])
    with ThreadPoolExecutor(_THREADS) as pool:
        for file, table in zip(published.files, tables, strict=True):
            rows = table.filter(pc.is_valid(table.column("output")))
            if not len(rows):  # `datasets` takes the columns from the first file that it finds
                continue
            folder, images_of = shard_name(file.shard), rows.select(_OUTPUT).to_pylist()
            names = [f"{number:06d}{_suffix(row)}" for number, row in enumerate(images_of)]
            for _ in pool.map(partial(_copy, published, store, folder), images_of, names):
                images += 1
            rows = rows.select(COLUMNS).add_column(0, "file_name", pa.array(names)).replace_schema_metadata()
            with_retries(partial(store.write, f"{folder}/metadata.parquet", to_parquet(rows, ROW_GROUP)))
    with_retries(partial(store.write, "README.md", "".join(card(published.manifest, images)).encode()))
    return images


def card(manifest: OutputSums, images: int) -> Iterator[str]:
    """The data card: counts, weights with their licences, versions and the config."""
    size = next((name for most, name in _SIZES if images < most), "n>1M")
    head = {
        "pretty_name": "Photos cleaned by occpipe",
        "tags": ["image", "occpipe"],
        "size_categories": [size],
    }
    yield f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# Photos cleaned by occpipe\n\n"
    yield f"{images} images, of which things were removed that do not relate to the scene. A row has the things of the\n"
    yield "photo with verdict, reason and relation score, and the masks as run-length counts in COCO's form, of\n"
    yield "mask_height x mask_width pixels.\n\n"
    yield "The licence of the photos is not known to occpipe: state it here before you publish them.\n\n"
    yield from _table(("status", "images"), manifest["status"].items())
    removed = sorted(manifest["removed"].items(), key=lambda item: -item[1])
    yield from _table(("removed", "things"), removed)
    weights = ([model.get(key) for key in ("name", "licence", "sha256")] for model in manifest["models"])
    yield from _table(("weights", "licence", "sha256"), weights)
    yield from _table(("package", "version"), manifest["versions"].items())
    config = yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=False)
    yield "Config:\n\n" + "".join(f"    {line}\n" for line in config.splitlines())


def _table(head: tuple[str, ...], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    lines = [[_cell(value) for value in row] for row in rows]
    for line in [head, ["---"] * len(head), *lines] if lines else ():
        yield f"| {' | '.join(line)} |\n"
    yield "\n" if lines else ""


def _cell(value: object) -> str:
    """Text in a table of Markdown; class names may come from the models of strangers."""
    text = "" if value is None else html.escape(" ".join(str(value).split()))
    return "".join(f"\\{c}" if c in "\\`*_[]|" else c for c in text)


def _suffix(row: Row) -> str:
    """The ending of the name of an image; one of a Parquet file has no name, but a format."""
    key = row["output"] or ""
    in_parquet = row["output_offset"] is not None and split_uri(key)[0].endswith(".parquet")
    return f".{(row['format'] or '').lower()}" if in_parquet else PurePosixPath(key).suffix


def _copy(published: Published, store: Store, folder: str, row: Row, name: str) -> None:
    key = row["output"] or ""
    if not is_safe_key(key if row["output_offset"] is None else split_uri(key)[0]):
        raise StorageError(f"{published.uri}: {key!r} is no name of an image")
    if row["output_offset"] is None:
        with_retries(partial(store.copy, published.store, key, f"{folder}/{name}", ""))
    else:
        data = with_retries(lambda: read_output(published.store, row))
        with_retries(partial(store.write, f"{folder}/{name}", data))
