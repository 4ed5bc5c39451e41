"""Calibration: probabilities from labels, verdicts and earlier runs, and cuts for a wanted share of false removals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from occpipe.core.config import Policy
from occpipe.models.relations import EmbeddingScorer
from occpipe.models.relations.benchmark import LabelledImage
from occpipe.models.relations.calibration import Calibration, Floats64, Observation, calibrate, observe_lists
from occpipe.models.relations.observations import judgements, observe_rows, observe_verdicts, read_verdicts
from occpipe.models.relations.vectors import read_asset

HOME = {"surfboard": ["sea", "sand"], "cat": ["couch", "pillow"], "car": ["road", "building-other"], "cup": ["table"]}


@pytest.fixture(scope="module")
def scorer() -> EmbeddingScorer:
    return EmbeddingScorer.from_arrays(*read_asset())


def recalibrated(result: Calibration) -> EmbeddingScorer:
    arrays, description = read_asset()
    return EmbeddingScorer.from_arrays(arrays, result.apply(description))


def observations(belong: int, strange: int) -> list[Observation]:
    """Things at home and elsewhere; every tenth of either kind is the other way round."""
    rng = np.random.default_rng(0)
    things, observations = list(HOME), []
    for number in range(belong + strange):
        own, other = (things[i] for i in rng.choice(len(things), 2, replace=False))
        usual = (number < belong) == (number % 10 != 0)
        observations.append(Observation(own, HOME[own if usual else other], number < belong))
    return observations


def odds_of(scorer: EmbeddingScorer, seen: list[Observation]) -> Floats64:
    return scorer.log_odds([o.thing for o in seen], [o.context for o in seen]).astype(np.float64)


def test_the_file_says_what_was_fitted(scorer: EmbeddingScorer) -> None:
    """Also for classes that were not observed, whose priors the new scale must not lose."""
    seen = observations(900, 300)
    result = calibrate(scorer, seen)
    priors = [result.priors.get(scorer.vectors.require(o.thing), 0.0) for o in seen]
    expected = odds_of(scorer, seen) * result.scale + result.shift + np.array(priors)
    assert odds_of(recalibrated(result), seen) == pytest.approx(expected, abs=1e-4)
    elsewhere = [Observation("zebra", ["grass", "tree"], None), Observation("fork", ["plate"], None)]
    expected = odds_of(scorer, elsewhere) * result.scale + result.shift
    assert odds_of(recalibrated(result), elsewhere) == pytest.approx(expected, abs=1e-4)


def test_probabilities_match_the_shares_that_were_judged(scorer: EmbeddingScorer) -> None:
    seen = observations(900, 300)
    better = recalibrated(calibrate(scorer, seen))
    signs = np.array([1.0 if o.belongs else -1.0 for o in seen])

    def cross_entropy(of: EmbeddingScorer) -> float:
        return float(np.logaddexp(0, -odds_of(of, seen) * signs).mean())

    assert cross_entropy(better) < cross_entropy(scorer)
    assert float(np.mean(1 / (1 + np.exp(-odds_of(better, seen))))) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("strange", [0.05, 0.5, 0.8, 0.95])
def test_verdicts_of_any_share_converge(scorer: EmbeddingScorer, strange: float) -> None:
    """High-scoring things judged strange, and things that the scores part perfectly, both ask for extreme steps."""
    rng = np.random.default_rng(1)
    high = [Observation("surfboard", HOME["surfboard"], bool(rng.random() >= strange)) for _ in range(1000)]
    low = [Observation("surfboard", ["bed", "pillow"], False)] * 300
    result = calibrate(scorer, high + low, 0.05)
    assert result.scale > 0
    assert 0 < result.default_cut < 1
    share = recalibrated(result).relation("surfboard", HOME["surfboard"])
    assert share == pytest.approx(1 - strange, abs=0.05)


def test_verdicts_against_the_scores_are_refused(scorer: EmbeddingScorer) -> None:
    seen = [Observation("cat", HOME["cat"], False), Observation("cat", HOME["car"], True)] * 2000
    with pytest.raises(ValueError, match="contradict the scores"):
        calibrate(scorer, seen)


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_the_cut_removes_the_wanted_share_of_what_belongs(scorer: EmbeddingScorer, share: float) -> None:
    images = [
        LabelledImage(str(n), (t, "person"), (*HOME[t], ("tree", "wall", "sky-other", "floor")[n % 4]))
        for n, t in enumerate(list(HOME) * 100)
    ]
    seen = observe_lists(images, scorer)
    result = calibrate(scorer, seen, share)
    assert result.default_cut == result.cuts[f"{share:g}"]
    assert (result.things, result.false_removal) == (len(seen), share)
    better = recalibrated(result)
    removed = np.mean([better.relation(o.thing, o.context) < result.default_cut for o in seen if o.belongs])
    assert 0.5 * share < removed <= share


def test_a_calibration_builds_on_the_one_before(scorer: EmbeddingScorer) -> None:
    seen = observations(900, 300)
    once = recalibrated(calibrate(scorer, seen))
    again = calibrate(once, seen)
    assert again.scale == pytest.approx(1, abs=0.1)
    assert again.shift == pytest.approx(0, abs=0.2)


def test_few_verdicts_move_little(scorer: EmbeddingScorer) -> None:
    verdicts = [Observation("cat", HOME["cat"], False)] * 2 + [Observation("cat", HOME["cat"], True)] * 50
    few, many = calibrate(scorer, verdicts), calibrate(scorer, verdicts * 50)
    assert abs(few.scale - 1) < abs(many.scale - 1)
    with pytest.raises(ValueError, match="at least 50 are needed"):
        calibrate(scorer, verdicts[:20])
    with pytest.raises(ValueError, match="0 things"):
        calibrate(scorer, [Observation("qwxyz", ["sea"], True), Observation("cat", ["qwxyz"], True)])


@pytest.mark.parametrize(("belongs", "per_class"), [(None, False), (True, True), (True, False)])
def test_a_class_is_not_removed_from_everywhere(scorer: EmbeddingScorer, belongs: bool | None, per_class: bool) -> None:
    """Where nobody has judged, and on request, the share holds within each class that was seen often enough."""
    seen = [Observation("car", HOME["car"], belongs)] * 4000 + [Observation("surfboard", HOME["car"], belongs)] * 60
    seen += [Observation("toilet", HOME["car"], belongs)] * 5
    result = calibrate(scorer, seen, per_class=per_class)
    better = recalibrated(result)
    kept = {t: better.relation(t, HOME["car"]) >= result.default_cut for t in ("car", "surfboard", "toilet")}
    held = belongs is None or per_class
    assert kept == {"car": True, "surfboard": held, "toilet": False}, "five toilets are too few to tell"
    assert result.scale == 1
    assert set(result.priors) == ({"surfboard"} if held else set())


def item(label: str, score: float, reason: str = "related") -> dict[str, Any]:
    return {"label": label, "score": score, "reason": reason}


def test_an_earlier_run_is_read_for_what_its_cut_decided(scorer: EmbeddingScorer) -> None:
    row: dict[str, Any] = {
        "objects": [item("car", 0.9), item("surfboard", 0.8, "unrelated"), item("cup", 0.2, "low_confidence")],
        "stuff": [{"label": "road", "confidence": 0.9}, {"label": "building-other", "confidence": 0.7}],
    }
    row["objects"].append(item("person", 0.9, "kept_by_policy"))
    nothing = {"objects": None, "stuff": None}
    seen = observe_rows([nothing, row], Policy(), scorer)
    assert [o.thing for o in seen] == ["car", "surfboard"]
    car = 0.9 * scorer.relation("car", {"road": 0.9, "building-other": 0.7})
    assert seen[1].context == {"car": car, "person": 0.9, "road": 0.9, "building-other": 0.7}
    sample = observe_rows([row] * 500, Policy(), scorer, limit=100)
    assert len(sample) == 100
    assert {o.thing for o in sample} == {"car", "surfboard"}


def test_verdicts_are_joined_by_uri_or_id_and_by_place_or_class(scorer: EmbeddingScorer, tmp_path: Path) -> None:
    table = tmp_path / "verdicts.csv"
    lines = ["image,object,verdict", "a/1.jpg,0,Remove", "77,cat,keep", "nowhere,cat,keep", "a/1.jpg,7,keep"]
    lines += ["a/2.jpg,0,keep", "78,0,keep", "78,cat,remove"]  # judged twice alike, and twice against itself
    table.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    objects = [item("cat", 0.4), item("cat", 0.9), item("car", 0.9)]
    rows = [
        {"image_id": 5, "uri": "a/1.jpg", "objects": objects, "stuff": [{"label": "road", "confidence": 0.8}]},
        {"image_id": 77, "uri": "a/2.jpg", "objects": objects, "stuff": None},
        {"image_id": 78, "uri": "a/3.jpg", "objects": objects[:1], "stuff": None},
        {"image_id": 79, "uri": "a/4.jpg", "objects": None, "stuff": None},
    ]
    seen, missed = observe_verdicts(rows, Policy(), scorer, read_verdicts(table))
    car = 0.9 * scorer.relation("car", {"road": 0.8})
    assert seen == [
        Observation("cat", {"car": car, "road": 0.8}, False),
        Observation("cat", {"car": 0.9}, True),
        Observation("cat", {"car": 0.9}, True),
    ]
    assert missed == ["nowhere, cat", "a/1.jpg, 7"] or missed == ["a/1.jpg, 7", "nowhere, cat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,object,verdict\na.jpg,0,keep\nb.jpg,0,maybe\n", "line 3"),
        ("image;object;verdict\na.jpg;0;keep\n", "no column image, separated by commas; found image;object;verdict"),
        ("", "an empty file"),
        ("image,object,verdict,grade\na.jpg,0,keep,6\n", "line 2: a grade is 1 to 5"),
        ("image,object,verdict,grade\n,,,4\n", "line 2: needs image"),
        ("image,object,verdict,grade\na.jpg,,,\n", "line 2: needs image"),
        ("image,object,verdict,grade\na.jpg,,keep,4\n", "line 2: needs image"),
    ],
)
def test_a_broken_table_is_named(text: str, message: str, tmp_path: Path) -> None:
    table = tmp_path / "verdicts.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_verdicts(table)


def test_grades_are_no_verdicts_and_raters_vote(tmp_path: Path) -> None:
    table = tmp_path / "verdicts.csv"
    lines = [
        "image,object,verdict,grade,rater,comment",
        "a.jpg,0,keep,,ann,fine",
        "a.jpg,,,4,ann",
        "a.jpg,cat,remove,2,bob",
    ]
    table.write_text("\n".join([*lines, "a.jpg,1,keep,,ann", "a.jpg,1,keep,,bob", "a.jpg,1,remove,,cid"]) + "\n")
    verdicts = read_verdicts(table)
    assert verdicts == {
        "a.jpg": [("0", True), ("cat", False), ("1", True), ("1", True), ("1", False)],
    }
    assert judgements("a.jpg", 5, ["cat", "car"], verdicts) == {1: True}, "the cat is a tie"


def test_a_table_of_verdicts_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.core.tables.MAX_BYTES", 30)
    table = tmp_path / "verdicts.csv"
    table.write_text("image,object,verdict\na.jpg,0,keep\n")
    with pytest.raises(ValueError, match="over 30 bytes"):
        read_verdicts(table)


def test_lists_are_seen_whole_and_thinned(scorer: EmbeddingScorer) -> None:
    images = [
        LabelledImage("a", ("boat", "person"), ("sea", "sky", "sand")),
        LabelledImage("b", ("bed", "cat"), ("pillow", "wall", "floor")),
    ]
    seen = observe_lists(images, scorer)
    assert sum(o.belongs is True for o in seen) == sum(o.belongs is False for o in seen) >= 10
    assert any(len(o.context) == 4 for o in seen)
