"""The scores of a paired study, and what its page holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from occpipe.analysis.pages.study import write_study
from occpipe.analysis.study import study_says
from tests.helpers.published import publish_rows, scene_row


def answers(path: Path, lines: list[str]) -> Path:
    path.write_text("image,run,natural,missing,rater\n" + "".join(f"{line}\n" for line in lines))
    return path


def figures(path: Path) -> dict[str, tuple[str, str]]:
    return {line.what: line.texts[1:] for line in study_says([path])}


def test_scores_are_shares_of_yes_and_differences_within_a_rater(tmp_path: Path) -> None:
    lines = []
    for photo in range(10):
        for rater in ("Ada", "Grace"):
            lines += [
                f"{photo}.jpg,original,yes,no,{rater}",
                f"{photo}.jpg,first,{'yes' if photo < 8 else 'no'},no,{rater}",
            ]
            lines += [f"{photo}.jpg,second,{'yes' if photo < 5 else 'no'},yes,{rater}"]
    said = figures(answers(tmp_path / "a.csv", lines))
    assert (said["raters"][0], said["images"][0]) == ("2", "10")
    assert said["original: looks natural"] == ("100%", "100% to 100%")
    assert (said["first: looks natural"][0], said["second: looks natural"][0]) == ("80%", "50%")
    assert (said["first: something is missing"][0], said["second: something is missing"][0]) == ("0%", "100%")
    value, interval = said["natural: first minus second"]
    low, high = map(float, interval.split(" to "))
    assert (value, 0 < low < 0.3 < high < 0.7) == ("0.30", True)
    assert said["agreement on natural (alpha)"][0] == "1.00"


def test_only_pairs_of_one_rater_are_compared_and_the_last_word_counts(tmp_path: Path) -> None:
    lines = ["1.jpg,first,no,,Ada", "1.jpg,first,yes,,Ada", "1.jpg,second,no,,Ada", "1.jpg,second,yes,,Grace"]
    said = figures(answers(tmp_path / "a.csv", lines))
    assert said["natural: first minus second"] == ("1.00", "")
    assert said["natural: original minus first"] == ("-", "")
    assert said["first: something is missing"] == ("-", "")


@pytest.mark.parametrize("line", ["1.jpg,third,yes,no,Ada", "1.jpg,first,perhaps,no,Ada"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"a\.csv, line 3: a run is original, first, second, and an answer yes or no"):
        study_says([answers(tmp_path / "a.csv", ["1.jpg,first,yes,no,Ada", line])])


def test_runs_without_a_changed_image_have_no_page(tmp_path: Path) -> None:
    for name in ("one", "two"):
        publish_rows(tmp_path / name, [scene_row(1, {"car": 0.9}, {"road": 0.9})])
    with pytest.raises(ValueError, match="no image was cleaned in one of these runs and is in both"):
        write_study(str(tmp_path / "one"), str(tmp_path / "two"), None, tmp_path / "study.html", 10)
