"""The pages as people use them: in a browser, over a real run of composed scenes with names from strangers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as Pil
from playwright.sync_api import Browser, Page
from typer.testing import CliRunner

from jobs.make_demo import scenes
from occpipe.analysis.agreement import rating_statistics
from occpipe.analysis.pages.report import write_report, write_review
from occpipe.cli.main import app
from occpipe.core.config_file import load_config
from occpipe.dataset.reader import Published
from occpipe.models.relations import EmbeddingScorer
from occpipe.models.relations.observations import observe_verdicts, read_verdicts
from occpipe.models.relations.vectors import read_asset
from occpipe.pipeline.run import clean_corpus
from tests.helpers.browser import DESKTOP, PHONE, chromium, needs_chromium, opened, too_wide, violations
from tests.helpers.published import publish_rows
from tests.helpers.scenes import SHARED_DATA
from tests.unit.analysis.test_pages import HOSTILE, row, thing

pytestmark = needs_chromium

MARKUP = "<img src=x onerror=alert(1)>.jpg"
FORMULA = "=cmd|'x'!A1, \"quoted\".jpg"
PLAIN = "kept/garage.jpg"
PHOTOS = 4
ALL_THAT_CAN_GO = ["policy.cut=1.0", "policy.min_score=0.3", "policy.min_area=0", "policy.max_area=1"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A run over three scenes and two files that fail; in two scenes the cat goes, in the third it stays."""
    folder = tmp_path_factory.mktemp("browser")
    known = dict(scenes())
    names = {MARKUP: "cat_at_the_palace", FORMULA: "cat_in_the_trees", PLAIN: "cat_in_the_garage"}
    for name, scene in names.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Pil.fromarray(known[scene]).save(folder / "in" / name, quality=92)
    (folder / "in" / "broken.jpg").write_bytes(b"no picture")
    (folder / "in" / "new\nline.jpg").write_bytes(b"a name that no store takes")
    result = clean_corpus(load_config("local", ["policy.cut=0.24"]), str(folder / "in"), str(folder / "out"))
    assert result.statuses == {"cleaned": 2, "unchanged": 1, "error": 2}
    return folder / "out"


# What the controls of a photo are, but for those of its things, of which there may be any number.
WITHOUT_THINGS = "all => all.filter(one => !one.closest('.why')).map(one => one.id || one.className).join()"


def card(page: Page, label: str) -> str:
    return page.locator(".viewer article.why").filter(has_text=label).first.inner_text()


def test_a_report_is_read(browser: Browser, output: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert write_report(str(output), None, file, 80) == 5
    assert file.stat().st_size < 1_000_000
    with opened(browser, file) as page:
        assert page.locator(".tile", has_text="cleaned").first.inner_text().split() == ["2", "cleaned", "40%"]
        assert page.locator(".histogram .cut").inner_text() == "cut 0.24"
        assert page.locator(".thumb").count() == 5
        assert page.locator("img[onerror]").count() == 0
        names = page.locator(".thumb .file").all_inner_texts()
        assert {MARKUP, FORMULA, "garage.jpg", "new line.jpg"} <= set(names), "as text, whatever is in them"

        page.get_by_label("Reason").select_option("unrelated")
        assert page.locator(".thumb").count() == 2
        page.get_by_label("Relation from", exact=True).fill("0.2")
        assert page.locator(".thumb").count() == 0
        assert "Nothing here passes" in page.locator(".grid").inner_text()
        page.get_by_role("button", name="Clear").click()
        page.get_by_label("Search").fill("garage cat")
        assert page.locator(".thumb .file").all_inner_texts() == ["garage.jpg"]
        page.get_by_role("button", name="Clear").click()
        page.get_by_role("button", name="cat: 2, show in the gallery").click()
        assert page.locator(".thumb").count() == 3, "removed in two of them"
        page.get_by_label("Status").select_option("cleaned")

        page.locator(".thumb").filter(has_text=MARKUP).click()
        why = card(page, "cat")
        assert "below the cut of 0.24" in why
        assert "nearest" in why
        assert "farthest" in why
        assert "adds" in why, "the share of each class, by the scorer that decided"
        slider = page.get_by_label("Before and after")
        clip = "getComputedStyle(document.querySelector('.viewer .picture .after')).clipPath"
        assert page.evaluate(clip) == "inset(0px 0px 0px 50%)"
        slider.focus()
        page.keyboard.press("End")
        assert slider.input_value() == "100"
        assert page.evaluate(clip) == "inset(0px 0px 0px 100%)"
        box = slider.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        assert 24 <= int(slider.input_value()) <= 26

        assert page.locator(".viewer .outline").count() >= 1
        page.get_by_label("outlines").uncheck()
        assert page.locator(".viewer .outline").count() == 0
        assert 24 <= int(page.get_by_label("Before and after").input_value()) <= 26, "it stays where it was put"
        page.get_by_role("button", name="cat: show in the picture").click()
        assert page.locator(".viewer .name.picked").inner_text() == "cat"

        page.keyboard.press("n")
        assert page.locator(".place").inner_text() == "2 / 2"
        page.keyboard.press("ArrowLeft")
        assert page.locator(".place").inner_text() == "1 / 2"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.className").startswith("thumb")
        page.get_by_role("button", name="Clear").click()
        page.locator(".thumb").filter(has_text="broken.jpg").click()
        assert "not_an_image: not one of JPEG" in page.locator(".viewer .aside").inner_text()


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, False), (PHONE, True)])
def test_a_report_can_be_read_by_all(
    browser: Browser, output: Path, tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    write_report(str(output), None, tmp_path / "report.html", 80)
    with opened(browser, tmp_path / "report.html", size, dark=dark) as page:
        assert violations(page) == []
        assert too_wide(page) <= 0
        page.locator(".thumb").filter(has_text=MARKUP).click()
        assert violations(page) == []
        assert too_wide(page) <= 0
        assert page.locator(".viewer .picture").bounding_box()["width"] > 250  # type: ignore[index]  # it is there


def test_a_review_is_rated_and_its_verdicts_are_read(browser: Browser, output: Path, tmp_path: Path) -> None:
    file = tmp_path / "review.html"
    assert write_review(str(output), None, file, 80, blind=False) == 3, "failures cannot be judged"
    with opened(browser, file) as page:
        page.locator(".save").click()
        assert page.locator("#announcement").inner_text() == "Please write your name first."
        page.get_by_label("Your name").fill("=HYPERLINK(1)")
        page.locator(".thumb").filter(has_text=MARKUP).click()
        cat = page.locator(".viewer .why").filter(has=page.get_by_role("button", name="cat: show"))
        cat.get_by_label("remove").check()
        page.get_by_label("4 good").check()
        assert violations(page) == []
        page.reload()
        assert page.get_by_label("Your name").input_value() == "=HYPERLINK(1)"
        assert page.locator(".viewer").is_visible(), "the address names the picture"
        assert cat.get_by_label("remove").is_checked(), "kept by the browser"
        page.keyboard.press("Escape")
        for name, key in ((FORMULA, "r"), ("garage.jpg", "k")):
            page.locator(".thumb").filter(has_text=name).click()
            for _ in range(page.locator(".viewer .why").count()):
                page.keyboard.press(key)
            page.keyboard.press("5")
            page.keyboard.press("Escape")
        assert "done" in page.locator(".thumb").filter(has_text=FORMULA).inner_text()
        with page.expect_download() as saved:
            page.locator(".save").click()
        assert saved.value.suggested_filename == "verdicts.csv"
        saved.value.save_as(tmp_path / "verdicts.csv")
    text = (tmp_path / "verdicts.csv").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == '"image","object","verdict","grade","rater"'
    assert not [line for line in lines if line.startswith(('"=', "="))], "no spreadsheet calculates a name"
    assert '"\'=HYPERLINK(1)"' in lines[1]
    published = Published(str(output))
    rows = {item["uri"]: item for item in published.rows()}
    verdicts = read_verdicts(tmp_path / "verdicts.csv")
    assert verdicts.keys() == {MARKUP, PLAIN, str(rows[FORMULA]["image_id"])}, "by its id, which matches as well"
    scorer = EmbeddingScorer.from_arrays(*read_asset(None))
    judged, missed = observe_verdicts(published.rows(), published.config.policy, scorer, verdicts)
    assert missed == []
    assert (False, "cat") in {(item.belongs, item.thing) for item in judged}
    statistics = {line.what: line.figure for line in rating_statistics(published, [tmp_path / "verdicts.csv"])}
    assert statistics["of what was removed, people remove"].value == 1  # type: ignore[union-attr]  # it is there
    assert statistics["mean grade, 1 to 5"].value == 4.5  # type: ignore[union-attr]  # 4 and 5; nothing changed in the garage


def test_a_run_is_looked_at_judged_and_done_again(browser: Browser, ray_cluster: None, tmp_path: Path) -> None:
    """Over photos of ../shared/data where they are there, else over scenes: all that can go goes, then people decide."""
    photos = sorted((SHARED_DATA / "photos").glob("*.jpg"))
    photos = photos[:: max(1, len(photos) // PHOTOS)][:PHOTOS]
    (tmp_path / "in").mkdir()
    for photo in photos:
        (tmp_path / "in" / photo.name).symlink_to(photo)
    for name, rgb in scenes() if not photos else ():
        Pil.fromarray(rgb).save(tmp_path / "in" / f"{name}.jpg", quality=92)
    output, corrected = tmp_path / "out", tmp_path / "corrected"
    config = load_config("local", [*ALL_THAT_CAN_GO, "inpainter.model=telea"])
    statuses = clean_corpus(config, str(tmp_path / "in"), str(output)).statuses
    assert statuses["cleaned"]
    write_report(str(output), None, tmp_path / "report.html", 80)
    with opened(browser, tmp_path / "report.html") as page:
        page.get_by_label("Status").select_option("cleaned")
        assert page.locator(".thumb").count() == statuses["cleaned"]
        page.locator(".thumb").first.click()
        assert page.locator(".viewer .why .verdict").first.inner_text() == "removed"
        assert "below the cut of 1.00" in page.locator(".viewer .why").first.inner_text()
        slider = page.get_by_label("Before and after")
        slider.focus()
        page.keyboard.press("End")
        assert slider.input_value() == "100"

    verdicts: dict[tuple[str, int], str] = {}
    shown = write_review(str(output), None, tmp_path / "review.html", 80, blind=False)
    with opened(browser, tmp_path / "review.html") as page:
        page.get_by_label("Your name").fill("Ann")
        for number in range(shown):
            page.locator(".thumb").nth(number).click()
            for card_ in page.locator(".viewer .why").all():
                verdict = ("keep", "remove")[len(verdicts) % 2]
                uri = page.locator(".viewer h2").get_attribute("title")
                verdicts[str(uri), int(str(card_.get_attribute("data-index")))] = verdict
                page.keyboard.press(verdict[0])
            page.keyboard.press("Escape")
        with page.expect_download() as saved:
            page.locator(".save").click()
        saved.value.save_as(tmp_path / "verdicts.csv")
    assert len(verdicts) > 1
    command = ["apply", str(output), str(corrected), "--verdicts", str(tmp_path / "verdicts.csv")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    rows = {item["uri"]: item["objects"] or [] for item in Published(str(corrected)).rows()}
    decided = {(uri, index): rows[uri][index]["reason"] for uri, index in verdicts}
    reasons = {"keep": "kept_by_review", "remove": "removed_by_review"}
    assert decided == {key: reasons[verdict] for key, verdict in verdicts.items()}


def test_a_blind_review_shows_no_verdict_before_the_photo_is_judged(
    browser: Browser, output: Path, tmp_path: Path
) -> None:
    file = tmp_path / "blind.html"
    write_review(str(output), None, file, 80, blind=True)
    text = file.read_text(encoding="utf-8")
    data = text[text.index('id="data">') : text.index("</script>", text.index('id="data">'))]
    assert not [word for word in ("unrelated", '"remove"', '"cleaned"', '"relation":0', "0.24") if word in data]
    with opened(browser, file) as page:
        seen = []
        for name in (MARKUP, "garage.jpg"):  # one was cleaned, the other one was not
            page.locator(".thumb").filter(has_text=name).click()
            before = page.locator("#unveil").inner_text()
            for _ in range(page.locator(".viewer .why").count()):
                page.keyboard.press("k")
            controls = page.locator(".viewer button, .viewer input").evaluate_all(WITHOUT_THINGS)
            page.keyboard.press("Escape")
            badge = page.locator(".thumb").filter(has_text=name).locator(".chip").all_inner_texts()
            seen.append((before, controls, badge))
        assert seen[0] == seen[1], "nothing tells them apart before the rater asks"
        assert page.locator(".count").first.inner_text() == "0 of 3 pictures done"
        page.locator(".thumb").filter(has_text="garage.jpg").click()
        page.locator("#unveil").click()
        assert "Nothing was changed." in page.locator(".viewer .aside").inner_text()
        page.keyboard.press("Escape")
        assert page.locator(".count").first.inner_text() == "1 of 3 pictures done"
        page.get_by_role("button", name="Start over").click()
        page.get_by_role("button", name="Forget all ratings").click()
        page.wait_for_function("document.querySelector('.rater .count').textContent.startsWith('0')")

        page.locator(".thumb").filter(has_text=MARKUP).click()
        assert page.get_by_label("Before and after").count() == 0
        assert page.locator(".viewer .filled").count() == 0
        unveil = page.locator("#unveil")
        assert unveil.is_disabled()
        for _ in range(page.locator(".viewer .why").count()):
            page.keyboard.press("r")
        unveil.click()
        assert page.get_by_label("Before and after").count() == 1
        assert page.locator(".viewer .why input").first.is_disabled(), "who has seen the result judges no more"
        page.keyboard.press("3")
        assert page.get_by_label("3 fair").is_checked()
        assert violations(page) == []


def test_a_report_of_a_scan_says_what_would_go(browser: Browser, tmp_path: Path) -> None:
    """One photo is shown; a bar of what only the other one has shows that nothing here passes."""
    planned = row(1, "scanned", thing("cat", 0.05, "unrelated"), removed=0.2)
    output = publish_rows(tmp_path / "out", [planned, row(2, "unchanged", thing("dog", 0.9, "too_large"))])
    assert write_report(str(output), None, tmp_path / "report.html", 1) == 1
    with opened(browser, tmp_path / "report.html") as page:
        assert page.locator(".tile", has_text="to be removed").inner_text().split()[0] == "1"
        assert page.locator(".tile", has_text="to be filled").inner_text().split()[0] == "20%"
        page.locator(".thumb").click()
        assert page.locator(".viewer .verdict").inner_text() == "would be removed"
        assert "would be removed: cat" in page.locator(".viewer .facts").inner_text()
        assert "20% to be filled" in page.locator(".viewer .aside").inner_text()
        assert violations(page) == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="too_large: 1, show in the gallery").click()
        assert page.get_by_label("Reason").input_value() == "too_large"
        assert "Nothing here passes" in page.locator(".grid").inner_text()


def test_pages_of_outputs_without_rows_and_with_nothing_but_errors(browser: Browser, tmp_path: Path) -> None:
    failed = [
        row(
            n,
            "error",
            objects=None,
            reason="truncated",
            uri=f"{HOSTILE}{n}",
            error={"stage": "x", "type": "y", "message": HOSTILE},
        )
        for n in range(3)
    ]
    odd = row(9, "unchanged", thing(HOSTILE, None, "no_context"), uri="gone.jpg")
    for name, rows in (("empty", []), ("errors", failed), ("odd", [odd])):
        output = publish_rows(tmp_path / name, rows)
        assert write_report(str(output), None, tmp_path / "report.html", 9) == len(rows)
        with opened(browser, tmp_path / "report.html") as page:
            assert page.locator(".thumb").count() == len(rows)
            assert violations(page) == []
            if rows:
                page.locator(".thumb").first.click()
                assert HOSTILE in page.locator(".viewer .aside").inner_text()
        rated = write_review(str(output), None, tmp_path / "review.html", 9, blind=False)
        assert rated == (name == "odd")
        with opened(browser, tmp_path / "review.html") as page:
            assert page.locator(".thumb").count() == rated
            assert violations(page) == []
