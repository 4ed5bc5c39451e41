from __future__ import annotations

from pathlib import Path

import pytest

from occpipe.analysis.agreement import Interval, alpha_of, mean_of, rating_statistics, read_ratings
from occpipe.dataset.reader import Published
from tests.helpers.published import publish_rows, scene_row

HEAD = "image,object,verdict,grade,rater\n"
# The worked example of Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): four observers, twelve units, of
# which some are missing, five values.
OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def units_of(observers: tuple[str, ...]) -> list[list[list[int]]]:
    return [[[int(o[unit]) - 1 for o in observers if o[unit] != "."]] for unit in range(len(observers[0]))]


def test_alpha_is_that_of_the_published_example() -> None:
    nominal, ordinal = alpha_of(units_of(OBSERVERS), 5), alpha_of(units_of(OBSERVERS), 5, ordinal=True)
    assert nominal is not None
    assert ordinal is not None
    assert nominal.value == pytest.approx(0.743, abs=0.0005)
    assert ordinal.value == pytest.approx(0.815, abs=0.0005)
    assert nominal.low is not None
    assert nominal.high is not None
    assert nominal.low < nominal.value < nominal.high <= 1


def test_alpha_of_those_who_agree_and_of_those_who_say_one_thing_only() -> None:
    assert alpha_of([[[0, 0]], [[1, 1]]], 2) == Interval(1.0)
    assert alpha_of([[[0, 1]], [[1, 0]]], 2) == Interval(-0.5)
    assert alpha_of([[[1, 1]], [[1, 1]]], 2) is None, "nothing can differ"
    assert alpha_of([[[0], [1]]], 2) is None, "nobody judged what another judged"
    assert alpha_of([], 2) is None


def test_a_mean_has_an_interval_where_there_are_images_enough() -> None:
    assert mean_of([]) is None
    assert mean_of([[4.0], [], [5.0, 3.0]]) == Interval(4.0)
    result = mean_of([[float(n % 5 + 1)] for n in range(200)])
    assert result is not None
    assert result.value == 3
    # 1.96 * sqrt(2 / 200), the interval of a normal mean
    assert result.low == pytest.approx(2.804, abs=0.03)
    assert result.high == pytest.approx(3.196, abs=0.03)


def test_what_people_say_of_an_output(tmp_path: Path) -> None:
    rows = [scene_row(n, {"cat": 0.9, "car": 0.8}, {"sky-other": 0.9}) for n in range(8)]
    for row in rows:
        row["objects"][0]["verdict"] = "remove"
    output = publish_rows(tmp_path / "out", rows)
    one = [f"{n}.jpg,0,remove,,ann\n{n}.jpg,1,keep,,ann\n{n}.jpg,,,4,ann\n" for n in range(8)]
    two = [f"{n},0,{'keep' if n == 7 else 'remove'},,bob\n{n},,,{4 + n % 2},bob\n" for n in range(8)]  # by id
    (tmp_path / "a.csv").write_text(HEAD + "".join(one))
    (tmp_path / "b.csv").write_text(HEAD + "".join(two))
    lines = {
        line.what: line for line in rating_statistics(Published(str(output)), [tmp_path / "a.csv", tmp_path / "b.csv"])
    }
    assert lines["raters"].figure == Interval(2)
    assert lines["things judged"].figure == Interval(16), "named by uri or by id, a thing is one thing"
    removed = lines["of what was removed, people remove"]
    assert removed.figure is not None
    assert removed.figure.value == 15 / 16
    assert removed.texts[1:] == ("94%", "81% to 100%")
    assert lines["of what stayed, people keep"].texts[1] == "100%"
    assert lines["mean grade, 1 to 5"].texts[1] == "4.25"
    agreement = lines["agreement on keep or remove (alpha)"].figure
    assert agreement is not None
    assert agreement.value == pytest.approx(0.0), "one 'keep' beside fifteen 'remove' is what chance gives"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,0,,,x", "line 2: needs image, and object with verdict, or a grade"),
        (",0,keep,,x", "line 2: needs image"),
        ("a.jpg,,,,x", "line 2: needs image"),
        ("a.jpg,0,maybe,,x", "line 2: a verdict is keep or remove"),
        ("a.jpg,,,6,x", "line 2: a grade is 1 to 5"),
    ],
)
def test_wrong_lines_are_named(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "v.csv"
    file.write_text(HEAD + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_ratings([file])


def test_the_last_word_counts_and_a_file_stands_for_a_rater_without_a_name(tmp_path: Path) -> None:
    file = tmp_path / "v.csv"
    file.write_text(HEAD + "a.jpg,0,keep,,\na.jpg,0,Remove,,\n")
    ratings = read_ratings([file])
    assert ratings.verdicts == {"a.jpg": {"0": {"v.csv": "remove"}}}


def test_verdicts_of_another_output_do_not_count(tmp_path: Path) -> None:
    output = publish_rows(tmp_path / "out", [scene_row(1, {"cat": 0.9, "car": 0.8}, {})])
    lines = ["1.jpg,cat,keep,,ann", "1,0,keep,,ann", "1.jpg,7,keep,,ann", "2.jpg,0,remove,,bob", "2.jpg,,,1,bob"]
    (tmp_path / "v.csv").write_text(HEAD + "\n".join(lines) + "\n")
    result = {line.what: line.figure for line in rating_statistics(Published(str(output)), [tmp_path / "v.csv"])}
    assert result["matched nothing"] == Interval(3)
    assert (result["raters"], result["things judged"]) == (Interval(1), Interval(1)), (
        "by its class and by id: one cat, once"
    )
    assert result["of what stayed, people keep"] == Interval(1.0)
    assert result["results graded"] == Interval(0)
    assert result["mean grade, 1 to 5"] is None


def test_a_bootstrap_is_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [[float(n % 5 + 1)] for n in range(60)]
    whole = mean_of(groups)
    monkeypatch.setattr("occpipe.analysis.agreement._MAX_COUNTS", 60 * 7)
    assert mean_of(groups) == whole


def test_a_file_of_ratings_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.core.tables.MAX_BYTES", 30)
    (tmp_path / "v.csv").write_text(HEAD)
    with pytest.raises(ValueError, match="over 30 bytes"):
        read_ratings([tmp_path / "v.csv"])
