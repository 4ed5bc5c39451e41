"""The shells that write pages, over outputs made of rows; what a browser makes of them is in test_browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from occpipe.analysis.pages import report
from occpipe.analysis.pages.report import write_report, write_review
from occpipe.core.errors import StorageError
from occpipe.pipeline.monitoring.run_result import RunCounts, block_summary
from tests.helpers.published import publish_rows
from tests.helpers.scenes import encoded, gradient
from tests.unit.analysis.test_pages import MIXED, row, thing

HEAD = "image,object,verdict,grade,rater\n"


def data_of(page: Path) -> dict[str, Any]:
    (text,) = re.findall(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    data: dict[str, Any] = json.loads(text)
    return data


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(1, 7):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encoded(gradient()))
    output = publish_rows(tmp_path / "out", MIXED)
    (output / "images").mkdir()
    return output


def test_a_report_counts_all_rows_and_shows_some(output: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "report.html"
    assert write_report(str(output), None, page, 2) == 2
    data = data_of(page)
    assert data["figures"]["images"] == 6
    assert len(data["entries"]) == 2
    assert data["title"] == "out"
    assert str(tmp_path) not in page.read_text(), "where it lies is nobody else's business"
    assert data["people"] is None
    (tmp_path / "v.csv").write_text(HEAD + "1.jpg,0,remove,,ann\n")
    write_report(str(output), None, page, 9, [tmp_path / "v.csv"])
    assert ["raters", "1", ""] in data_of(page)["people"]
    moved = (tmp_path / "photos").rename(tmp_path / "moved")
    write_report(str(output), None, page, 9)
    assert {entry["before"] for entry in data_of(page)["entries"]} == {None}
    write_report(str(output), str(moved), page, 9)
    assert {entry["uri"] for entry in data_of(page)["entries"] if entry["before"]} == {"3.jpg", "6.jpg"}


def test_a_review_shows_what_can_be_judged(output: Path, tmp_path: Path) -> None:
    page = tmp_path / "review.html"
    assert write_review(str(output), None, page, 9, blind=False) == 3
    assert data_of(page)["entries"][0]["objects"][0]["verdict"] == "remove"
    assert write_review(str(output), None, page, 9, blind=True) == 3
    data = data_of(page)
    assert data["policy"] is None
    assert {item["verdict"] for entry in data["entries"] for item in entry["objects"]} == {None}
    assert {entry["status"] for entry in data["entries"]} == {None}


def test_a_page_of_large_rows_keeps_within_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of noise, which no codec makes small, and 100 things in each; an eighth of a page's bytes."""
    monkeypatch.setattr(report, "PICTURE_BYTES", pictures := report.PICTURE_BYTES // 8)
    monkeypatch.setattr(report, "TEXT_BYTES", texts := report.TEXT_BYTES // 8)
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    for number in range(14):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encoded(noise))
    evidence = [{"context": "sky", "relation": 0.5}] * 12
    things = [thing(f"thing {n}", 0.5, "related", evidence=evidence) for n in range(100)]
    rows = [row(n, "unchanged", *things, width=640, height=480) for n in range(14)]
    output = publish_rows(tmp_path / "out", rows)
    page = tmp_path / "report.html"
    assert write_report(str(output), None, page, 12) == 12
    assert pictures * 0.5 < page.stat().st_size < pictures + texts + 60_000
    shown = data_of(page)["entries"]
    assert all(entry["before"] for entry in shown)
    assert {len(entry["objects"]) + entry["more"] for entry in shown} == {100}


def test_a_damaged_file_is_an_error_that_names_it(output: Path, tmp_path: Path) -> None:
    (file,) = (output / "metadata").glob("*.parquet")
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(StorageError, match=file.name):
        write_report(str(output), None, tmp_path / "report.html", 9)


def test_names_in_a_summary_steer_no_terminal() -> None:
    counts = RunCounts()
    error = {"stage": "load", "type": "ImageError", "message": "unsafe"}
    item = {"uri": "a\x1b[2J\n0 errors.jpg", "status": "error", "reason": "unsafe_path", "error": error}
    (block,) = block_summary(0, pa.Table.from_pylist([item])).to_pylist()
    counts.add(json.loads(block["summary"]))
    assert counts.examples == {"unsafe_path": "a\\x1b[2J\\x0a0 errors.jpg: unsafe"}
