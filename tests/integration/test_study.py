"""A paired study over two runs, opened in a browser, judged, saved and scored."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page
from typer.testing import CliRunner

from occpipe.analysis.pages.study import write_study
from occpipe.cli.main import app
from tests.helpers.browser import DESKTOP, PHONE, chromium, needs_chromium, opened, too_wide, violations
from tests.helpers.published import publish_rows, scene_row
from tests.helpers.scenes import encoded

HOSTILE = "<img src=x onerror=alert(1)>.jpg"
COLOURS = {"original": (200, 40, 40), "first": (40, 200, 40), "second": (40, 40, 200)}
PHOTOS = 6


def flat(run: str, number: int) -> bytes:
    rgb = np.full((90, 100, 3), COLOURS[run], np.uint8)
    rgb[:10, : 10 * number] = 255
    return encoded(rgb, "PNG")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs over six photos; the second left the last one as it was, and neither changed a seventh."""
    rows: dict[str, list[dict[str, Any]]] = {"first": [], "second": []}
    for number in range(1, PHOTOS + 2):
        name = HOSTILE if number == 1 else f"{number}.jpg"
        for folder in ("photos", "first/images", "second/images"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(flat("original", number))
        for run, made in rows.items():
            row = scene_row(number, {}, {}) | {"uri": name}
            if number <= PHOTOS and (run, number) != ("second", PHOTOS):
                row |= {"status": "cleaned", "output": f"images/{name}"}
                (tmp_path / run / "images" / name).write_bytes(flat(run, number))
            made.append(row)
    for run, made in rows.items():
        publish_rows(tmp_path / run, made)
    return tmp_path / "first", tmp_path / "second"


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_pictures_come_in_an_order_of_their_own_and_equal_ones_once(runs: tuple[Path, Path], tmp_path: Path) -> None:
    assert write_study(str(runs[0]), str(runs[1]), None, tmp_path / "study.html", 30) == PHOTOS
    entries = data_of(tmp_path / "study.html")["entries"]
    orders = {entry["image"]: [picture["runs"] for picture in entry["pictures"]] for entry in entries}
    assert sorted(map(sorted, orders.pop(f"{PHOTOS}.jpg"))) == [["first"], ["original", "second"]]
    assert all(sorted(order) == [["first"], ["original"], ["second"]] for order in orders.values())
    assert len({str(order) for order in orders.values()}) > 1
    assert f"{PHOTOS + 1}.jpg" not in orders, "nobody changed it"
    write_study(str(runs[0]), str(runs[1]), None, tmp_path / "again.html", 30)
    assert data_of(tmp_path / "again.html") == data_of(tmp_path / "study.html"), "every rater sees the same page"
    assert write_study(str(runs[0]), str(runs[1]), None, tmp_path / "few.html", 2) == 2


@needs_chromium
def test_a_study_is_judged_saved_and_scored(runs: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "study.html"
    write_study(str(runs[0]), str(runs[1]), None, file, 30)
    entries = data_of(file)["entries"]
    with chromium() as browser:
        with opened(browser, file, DESKTOP) as page:
            assert page.locator(".pairs").count() == PHOTOS
            assert page.locator(".count").inner_text() == f"0 of {PHOTOS} photos done"
            assert not re.search("original|first|second", page.locator("#main").inner_text()), "pictures have no names"
            page.locator(".save").click()
            assert page.locator("#rater").get_attribute("aria-invalid") == "true"
            judge(page, entries)
            assert page.locator(".count").inner_text() == f"{PHOTOS} of {PHOTOS} photos done"
            page.get_by_label("Your name").fill("=Ada")
            with page.expect_download() as saved:
                page.locator(".save").click()
            saved.value.save_as(tmp_path / "answers.csv")
            assert violations(page) == []
            page.reload()
            assert page.locator(".count").inner_text() == f"{PHOTOS} of {PHOTOS} photos done", "the browser keeps them"
        with opened(browser, file, PHONE, dark=True) as page:
            assert too_wide(page) <= 0
            assert violations(page) == []
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as answers:
        lines = list(csv.DictReader(answers))
    assert len(lines) == 3 * PHOTOS
    assert {line["rater"] for line in lines} == {"'=Ada"}
    assert {line["image"] for line in lines} >= {HOSTILE, "2.jpg"}
    done = CliRunner().invoke(app, ["study", "--answers", str(tmp_path / "answers.csv")], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    figures = {
        line.split("│")[1].strip(): line.split("│")[2].strip() for line in done.output.splitlines() if "│" in line
    }
    assert figures["original: looks natural"] == "100%"
    assert figures["first: looks natural"] == "0%"
    assert figures["second: looks natural"] == "17%", "its one unchanged photo has the picture of the original"
    assert figures["natural: original minus first"] == "1.00"
    assert figures["first: something is missing"] == "100%"


def judge(page: Page, entries: list[dict[str, Any]]) -> None:
    """Say that the originals look natural, and that something is missing in all others."""
    for number, entry in enumerate(entries):
        for place, picture in enumerate(entry["pictures"]):
            is_original = "original" in picture["runs"]
            for question, answer in (("natural", is_original), ("missing", not is_original)):
                page.locator(f"[id='{number}-{place}-{question}-{'yes' if answer else 'no'}']").check()


def test_one_output_alone_is_one_line(runs: tuple[Path, Path]) -> None:
    done = CliRunner().invoke(app, ["study", str(runs[0])])
    assert done.exit_code == 2
    assert "two outputs" in done.output
