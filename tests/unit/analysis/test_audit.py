from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from occpipe.analysis.audit import Audit, audit, queries
from occpipe.analysis.flatten import flat_tables
from occpipe.core.errors import StorageError
from occpipe.core.types import Status
from occpipe.dataset.reader import Published
from tests.helpers.published import publish_rows, removed_row, scene_row

ROOT = Path(__file__).parents[3]


def rows() -> list[dict[str, Any]]:
    """Two photos from which a cat goes, one in which it stays, one with nothing, one that was too small, one broken."""
    error = {"stage": "segment", "type": "ImageError", "message": "\x1b[2J is no image"}
    return [
        removed_row(1, {"cat": 0.05, "person": 0.8}, {"grass": 0.9, "tree": 0.5}, share=0.1),
        removed_row(2, {"cat": 0.11, "dog": 0.4}, {"grass": 0.7}, share=0.25),
        scene_row(3, {"cat": 0.9}, {"wall-other": 0.9}),
        scene_row(4, {}, {}),
        {
            "image_id": 5,
            "uri": "5.gif",
            "status": "skipped",
            "reason": "multiple_frames",
            "error": error,
            "config": "c",
        },
        {"image_id": 6, "uri": "6.jpg", "status": "error", "reason": "truncated", "error": error, "config": "c"},
        {"image_id": 7, "uri": "7.jpg", "status": "error", "reason": "truncated", "error": error, "config": "c"},
    ]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_rows(tmp_path_factory.mktemp("audit") / "cleaned", rows())


@pytest.fixture(scope="module")
def report(output: Path) -> Audit:
    return audit(str(output))


def test_images_by_status(report: Audit) -> None:
    assert [(row.status, row.images) for row in report.status] == [
        ("cleaned", 2),
        ("unchanged", 2),
        ("scanned", 0),
        ("skipped", 1),
        ("error", 2),
    ]
    assert report.images == 7
    assert report.status[0].removed == pytest.approx(0.175)
    assert report.status[0].pixels == 9000 * 0.35
    totals = json.loads(json.dumps(report.as_dict()))["totals"]
    assert totals == {"cleaned": 2, "unchanged": 2, "scanned": 0, "skipped": 1, "error": 2}


def test_failures_by_type(report: Audit) -> None:
    assert report.failures == [
        ("error", "truncated", "segment", "ImageError", 2),
        ("skipped", "multiple_frames", "segment", "ImageError", 1),
    ]


def test_things_by_class_verdict_and_reason(report: Audit) -> None:
    assert report.things == 5
    cats, *others = report.classes
    assert cats[:4] == ("cat", "remove", "unrelated", 2)
    assert cats.share == pytest.approx((12 * 21 + 12 * 22) / 2 / 9000)
    assert cats.relation == pytest.approx(0.08)
    assert [row[:4] for row in others] == [
        ("cat", "keep", "related", 1),
        ("dog", "keep", "related", 1),
        ("person", "keep", "related", 1),
    ]
    assert others[0].relation is None, "that row has no score"


def test_scores_and_areas_in_steps(report: Audit) -> None:
    assert [(row.low, row.verdict, row.things) for row in report.relations] == [
        (0.04, "remove", 1),
        (0.1, "remove", 1),
        (0.4, "keep", 1),
        (0.8, "keep", 1),
    ]
    assert [(row.low, row.images) for row in report.removed] == [(0.1, 1), (0.25, 1)]


def test_where_a_class_was_removed(report: Audit) -> None:
    assert report.scenes == [("cat", "grass", 2, 1.0), ("cat", "tree", 1, 0.5)], "a room in which a cat stays is none"


def test_outliers(report: Audit) -> None:
    assert report.cut is not None
    large, near, many = ([row for row in report.outliers if row.kind == kind] for kind in ("large", "near", "many"))
    assert [(row.uri, round(row.value, 6)) for row in large] == [("2.jpg", 0.25), ("1.jpg", 0.1)]
    (nearest,) = near
    assert nearest.value == pytest.approx(0.11 - report.cut)
    assert nearest[2:] == ("2.jpg", 2, 0, "cat", "remove")
    assert [(row.uri, row.value) for row in many] == [("1.jpg", 2), ("2.jpg", 2), ("3.jpg", 1)]
    assert len(audit(report.output, top=1).outliers) == 3


def test_the_answers_are_those_of_plain_sql(report: Audit, output: Path) -> None:
    """The views over the Parquet, as docs/sql.md has them, and the tables of the command give the same."""
    views = (ROOT / "occpipe" / "analysis" / "views.sql").read_text().replace("cleaned/", f"{output}/")
    with duckdb.connect() as database:
        database.execute(views)
        database.execute(f"SET VARIABLE cut = {report.cut}; SET VARIABLE top = 10")
        over_parquet = {name: database.execute(query).fetchall() for name, query in queries().items()}
    (flat,) = flat_tables(Published(str(output)), [file.name for file in Published(str(output)).files])
    with duckdb.connect() as database:
        for name, table in flat._asdict().items():
            database.register(name, table)
        database.execute(f"SET VARIABLE cut = {report.cut}; SET VARIABLE top = 10")
        for name, query in queries().items():
            assert sorted(map(str, database.execute(query).fetchall())) == sorted(map(str, over_parquet[name])), name


def test_an_output_of_nothing(tmp_path: Path) -> None:
    empty = audit(str(publish_rows(tmp_path / "empty", [])))
    assert (empty.images, empty.things, empty.classes, empty.outliers) == (0, 0, [], [])
    assert [row.status for row in empty.status] == list(Status)
    broken = audit(str(publish_rows(tmp_path / "broken", rows()[-1:])))
    assert (broken.images, broken.things) == (1, 0)


def test_a_relation_out_of_bounds_is_counted_at_the_edge(tmp_path: Path) -> None:
    things = {"cat": -0.01, "dog": 1.5, "car": float("nan")}
    odd = audit(str(publish_rows(tmp_path / "odd", [removed_row(1, things, {"grass": 0.9}, share=0.1)])))
    assert [(row.low, row.things) for row in odd.relations] == [(0.0, 1), (0.98, 2)]


def test_the_cut_of_the_policy_needs_no_relation_file(output: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(output, tmp_path / "elsewhere")
    manifest = elsewhere / "metadata" / "_manifest.json"
    values = json.loads(manifest.read_text())
    values["config"]["relations"]["vectors"] = "/elsewhere/mine.safetensors"
    values["config"]["policy"]["cut"] = None
    manifest.write_text(json.dumps(values))
    assert audit(str(elsewhere)).cut is None
    values["config"]["policy"]["cut"] = 0.3
    manifest.write_text(json.dumps(values))
    assert audit(str(elsewhere)).cut == 0.3


def test_what_cannot_be_read_is_said(tmp_path: Path, output: Path) -> None:
    with pytest.raises(StorageError, match="nothing is published there"):
        audit(str(tmp_path))
    torn = publish_rows(tmp_path / "torn", rows())
    (file,) = (torn / "metadata").glob("*.parquet")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(StorageError, match=r"torn/metadata/.*\.parquet"):
        audit(str(torn))
    pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # the footer is whole, what it speaks of is not
    file.write_bytes(bytes(pages) + data[pages:])
    with pytest.raises(StorageError, match="cannot be read"):
        audit(str(torn))
