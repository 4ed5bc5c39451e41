"""Published rows as three flat tables for SQL: images, their things, their stuff.

The names and columns are those of `views.sql`, without the columns that no query of `audit.sql` reads: masks, boxes and
evidence make up most of the bytes. DuckDB reads all of a list of structs (2.7 s for a million rows), pyarrow only the
named leaves (0.4 s).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from occpipe.core.types import Verdict
from occpipe.dataset.reader import Published

ROWS = 250_000
"""Images in memory at a time, where row groups are not larger. With fewer, the fixed cost of a query dominates."""

_TEXTS = ("status", "reason", "error.stage", "error.type")
_THING_TEXTS = tuple(f"objects.list.element.{name}" for name in ("label", "verdict", "reason"))
_STUFF = "stuff.list.element.label"
_DICTIONARIES = (*_TEXTS, *_THING_TEXTS, _STUFF)
_NUMBERS = ("image_id", "width", "height", "removed", "objects.list.element.area", "objects.list.element.relation")
COLUMNS = ("uri", *_NUMBERS, *_DICTIONARIES)
"""The columns that are read."""


class Flat(NamedTuple):
    """Some published rows: one row an image, one a thing, one a stuff class of an image from which a thing goes."""

    images: pa.Table
    objects: pa.Table
    stuff: pa.Table


def flat_tables(published: Published, files: Sequence[str]) -> Iterator[Flat]:
    """The rows of some of the published files, `ROWS` images or one row group at a time."""
    pending: list[pa.Table] = []
    for file in files:
        with published.open(file, _DICTIONARIES) as opened:
            for group in range(opened.num_row_groups):
                pending.append(opened.read_row_group(group, list(COLUMNS), use_threads=False))
                if sum(map(len, pending)) >= ROWS:
                    yield flatten(pa.concat_tables(pending))
                    pending.clear()
    if any(map(len, pending)):
        yield flatten(pa.concat_tables(pending))


def flatten(rows: pa.Table) -> Flat:
    """Rows, at least one, with the columns `COLUMNS` as flat tables."""
    images = rows.drop_columns(["objects", "stuff"])
    images = images.append_column("things", pc.list_value_length(rows.column("objects")))
    parts = [_nested(batch) for batch in rows.to_batches()]
    objects, stuff = (pa.Table.from_batches(list(batches)) for batches in zip(*parts, strict=True))
    return Flat(images, objects, stuff)


def _nested(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """The things of rows, and the stuff of rows from which a thing goes: no query reads other stuff."""
    uris, lists = rows.column("uri"), rows.column("objects")
    parents, things = pc.list_parent_indices(lists), lists.flatten()
    places = _array(np.arange(len(things), dtype=np.int32))
    pixels = pc.multiply(rows.column("width").cast(pa.float64()), rows.column("height").cast(pa.float64()))
    objects = {
        "uri": pa.DictionaryArray.from_arrays(parents, uris),
        "object": pc.subtract(places, pc.subtract(lists.offsets, lists.offsets[0]).take(parents)),
        **{name: things.field(name) for name in ("label", "relation", "verdict", "reason")},
        "share": pc.divide(things.field("area").cast(pa.float64()), pixels.take(parents)),
    }
    verdicts = things.field("verdict")
    removed = [place for place, name in enumerate(verdicts.dictionary.to_pylist()) if name == Verdict.REMOVE]
    goes = pc.unique(parents.filter(pc.is_in(verdicts.indices, _array(np.array(removed, np.int32)))))
    uris, lists = uris.take(goes), rows.column("stuff").take(goes)
    parents = pc.list_parent_indices(lists)
    stuff = {"uri": pa.DictionaryArray.from_arrays(parents, uris), "label": lists.flatten().field("label")}
    return pa.RecordBatch.from_pydict(objects), pa.RecordBatch.from_pydict(stuff)


def _array(values: NDArray[np.int32]) -> pa.Array:
    """NumPy's integers as Arrow's. `pa.array` would first import pandas, which takes a second."""
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])
