"""The published Parquet is read by the tools that people have, with the same values, and has types that Spark knows."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from occpipe.core.schemas import PUBLISHED
from tests.helpers.published import publish_rows, removed_row, scene_row

SPARK = {pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.large_string()}
"""Of the types that Spark reads from Parquet, those that occpipe may need. A large string is one for Arrow only."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [removed_row(1, {"cat": 0.05, "person": 0.8}, {"grass": 0.9}, share=0.1), scene_row(2, {"dog": 0.9}, {})]
    error = {"stage": "fetch", "type": "ImageError", "message": "no"}
    rows.append({"image_id": 3, "uri": "3.jpg", "status": "error", "reason": "missing", "error": error, "config": "c"})
    return publish_rows(tmp_path_factory.mktemp("readers") / "cleaned", rows) / "metadata"


def test_pandas(files: Path) -> None:
    (file,) = files.glob("*.parquet")
    rows = pd.read_parquet(file).set_index("image_id")
    assert list(rows.status) == ["cleaned", "unchanged", "error"]
    assert [item["label"] for item in rows.objects[1]] == ["cat", "person"]
    assert rows.objects[3] is None


def test_polars(files: Path) -> None:
    rows = pl.read_parquet(files / "*.parquet")
    things = rows.explode("objects").unnest("objects", separator=".").filter(pl.col("objects.verdict") == "remove")
    assert things.select("image_id", "objects.label").rows() == [(1, "cat")]


def test_duckdb(files: Path) -> None:
    with duckdb.connect() as database:
        query = (
            "SELECT o.label, count(*) FROM (SELECT unnest(objects) AS o FROM read_parquet($1)) GROUP BY 1 ORDER BY 1"
        )
        assert database.execute(query, [f"{files}/*.parquet"]).fetchall() == [("cat", 1), ("dog", 1), ("person", 1)]


def test_pyarrow_dataset(files: Path) -> None:
    rows = ds.dataset([str(path) for path in files.glob("*.parquet")])
    assert rows.to_table(columns=["uri"], filter=ds.field("status") == "cleaned").to_pydict() == {"uri": ["1.jpg"]}


def test_spark_knows_the_types(files: Path) -> None:
    (file,) = files.glob("*.parquet")
    assert pq.read_schema(file).equals(PUBLISHED)
    assert set(leaves(PUBLISHED)) <= SPARK


def leaves(kind: pa.Schema | pa.DataType) -> list[pa.DataType]:
    """The types at the ends of nested ones; lists must have the plain form."""
    if isinstance(kind, pa.Schema | pa.StructType):
        return [leaf for field in kind for leaf in leaves(field.type)]
    if isinstance(kind, pa.ListType):
        return leaves(kind.value_type)
    return [kind]
