from __future__ import annotations

from pathlib import Path

import pytest

from occpipe.analysis.audit import Audit, ClassRow, FailureRow, RelationRow, StatusRow, audit
from occpipe.analysis.drift import compare
from tests.helpers.published import publish_rows, removed_row, scene_row


def audit_of(cleaned: int, cats: int, *, cut: float | None = None, low: float = 0.5) -> Audit:
    """1,000 images with 500 cats, some of which went."""
    return Audit(
        output="x",
        images=1000,
        things=500,
        cut=cut,
        config={"digest": str(cut), "policy": {"cut": cut, "keep": []}},
        status=[StatusRow("cleaned", cleaned, 0.1, 1), StatusRow("unchanged", 1000 - cleaned, 0.0, 0)],
        failures=[FailureRow("error", "truncated", "fetch", "ImageError", 10)],
        classes=[
            ClassRow("cat", "remove", "unrelated", cats, 0.1, 0.05),
            ClassRow("cat", "keep", "related", 500 - cats, 0.1, 0.5),
        ],
        relations=[
            RelationRow(low, low + 0.02, "keep", "related", 400),
            RelationRow(0.9, 0.92, "keep", "related", 100),
        ],
        removed=[],
        scenes=[],
        outliers=[],
    )


def test_shares_with_what_they_are_worth() -> None:
    drift = compare(audit_of(100, 50, cut=None), audit_of(150, 75, cut=0.3, low=0.6))
    rows = {(row.what, row.name): row for row in drift.rows}
    status = rows["status", "cleaned"]
    assert (status.before, status.after) == (0.1, 0.15)
    assert status.z == pytest.approx(0.05 / (0.125 * 0.875 * 2 / 1000) ** 0.5)
    removed = rows["removed", "cat"]
    assert (removed.before, removed.after) == (0.1, 0.15)
    assert rows["class", "cat"][2:] == (1.0, 1.0, 0.0)
    assert rows["failure", "truncated"][2:] == (0.01, 0.01, 0.0)
    assert [abs(row.z) for row in drift.rows] == sorted((abs(row.z) for row in drift.rows), reverse=True)
    assert drift.relations == 0.8, "400 of 500 scores are in another step"
    assert drift.settings == {"policy.cut": (None, 0.3)}


def test_an_output_does_not_drift_from_itself_nor_from_nothing(tmp_path: Path) -> None:
    rows = [removed_row(1, {"cat": 0.05}, {"grass": 0.9}, share=0.1), scene_row(2, {"dog": 0.9}, {})]
    one = audit(str(publish_rows(tmp_path / "one", rows)))
    same = compare(one, one)
    assert (same.relations, same.settings) == (0.0, {})
    assert all(row.z == 0 for row in same.rows)
    none = compare(audit(str(publish_rows(tmp_path / "none", []))), one)
    assert none.relations is None, "no scores, no distance"
    assert {(row.what, row.name) for row in none.rows if row.after} >= {("status", "cleaned"), ("class", "cat")}
    assert all(row.before == 0 for row in none.rows)
