"""The types of rows beside the Arrow schemas."""

from __future__ import annotations

import pyarrow as pa
import pytest

from occpipe.core import rows, schemas


def names(struct: pa.StructType) -> set[str]:
    return {struct.field(place).name for place in range(struct.num_fields)}


def test_a_row_has_the_columns_of_the_pipeline() -> None:
    assert rows.Row.__annotations__.keys() == schemas.PIPELINE.keys()


@pytest.mark.parametrize(
    ("row", "struct"),
    [
        (rows.StuffRow, schemas.STUFF),
        (rows.EvidenceRow, schemas.EVIDENCE),
        (rows.BoxRow, schemas.BOX),
        (rows.SegmentRow, schemas.SEGMENT),
        (rows.ObjectRow, schemas.OBJECT),
        (rows.ErrorRow, schemas.ERROR),
    ],
)
def test_structs_have_the_fields_of_their_schema(row: type, struct: pa.StructType) -> None:
    assert {*row.__annotations__} == names(struct)
