from __future__ import annotations

import pyarrow as pa
import pytest

from occpipe.core.schemas import PIPELINE
from occpipe.core.types import Status
from occpipe.io.images import ImageError, ImageReason
from occpipe.io.storage import ArchivedError, SourceChangedError, TooLargeError
from occpipe.stages.rows import MAX_MESSAGE, Rows


@pytest.fixture
def rows() -> Rows:
    return Rows(pa.table({"uri": ["a", "b", "c"], "status": pa.array([None, "error", None], pa.string())}), "segment")


def column(table: pa.Table, name: str) -> list[object]:
    values: list[object] = table.column(name).to_pylist()
    return values


def test_open_rows_have_no_status(rows: Rows) -> None:
    assert rows.open() == [0, 2]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ImageError(ImageReason.TRUNCATED, "x"), "error", "truncated"),
        (ImageError(ImageReason.COLOUR_MODEL, "x"), "skipped", "colour_model"),
        (FileNotFoundError("x"), "error", "missing"),
        (PermissionError("x"), "error", "forbidden"),
        (ArchivedError("x"), "error", "archived"),
        (ConnectionResetError("x"), "error", "unreachable"),
        (SourceChangedError("x"), "error", "source_changed"),
        (TooLargeError("x"), "error", "too_many_bytes"),
    ],
)
def test_a_failure_is_a_row(rows: Rows, error: Exception, status: str, reason: str) -> None:
    with rows.attempt(2):
        raise error
    table = rows.table()
    assert column(table, "status") == [None, "error", status]
    assert column(table, "reason") == [None, None, reason]
    assert column(table, "error")[2] == {"stage": "segment", "type": type(error).__name__, "message": "x"}


def test_an_unexpected_failure_leaves_a_traceback_and_names_it(rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with rows.attempt(2):
            raise RuntimeError("x")
    with rows.attempt(0):
        raise ConnectionResetError("the store is away")
    names = [line.split("]")[0] + "]" for line in caplog.messages]
    assert names[0] == names[1], "the same failure has the same name in each run"
    assert caplog.messages[0] == f"{names[0]} segment failed on c"
    assert [record.exc_info and str(record.exc_info[1]) for record in caplog.records] == ["x", "x"]
    errors = [error and error["message"] for error in column(rows.table(), "error")]
    assert errors == ["the store is away", None, f"x {names[0]}"]


def test_messages_are_one_line_and_capped(rows: Rows) -> None:
    rows.fail(0, RuntimeError("a\nb" + "c" * 9999))
    error = column(rows.table(), "error")[0]
    assert isinstance(error, dict)
    assert error["message"].startswith("a bc")
    assert "c [log " in error["message"]
    assert len(error["message"]) == MAX_MESSAGE


def test_one_bad_row_fails_alone(rows: Rows) -> None:
    asked: list[list[int]] = []

    def work(part: list[int]) -> list[str]:
        asked.append(part)
        if 2 in part:
            raise RuntimeError("a picture the model cannot take")
        return ["fine" for _ in part]

    assert rows.together_or_alone([0, 2], work) == {0: "fine"}
    assert asked == [[0, 2], [0], [2]]
    assert column(rows.table(), "status") == [None, "error", "error"]
    assert rows.together_or_alone([], work) == {}


def test_the_table_has_the_declared_types(rows: Rows) -> None:
    rows.finish(0, Status.UNCHANGED)
    table = rows.table(["uri"], data=[b"x", None, None])
    assert table.column_names == ["status", "reason", "error", "data"]
    assert all(table.schema.field(name).type == PIPELINE[name] for name in table.column_names)
