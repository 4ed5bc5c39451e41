"""Calibration: probabilities from labels, verdicts and earlier runs, and cuts for a wanted share of false removals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from occpipe.config import Policy
from occpipe.relations import EmbeddingScorer
from occpipe.relations.benchmark import LabelledImage
from occpipe.relations.calibration import (
    Observation,
    calibrate,
    observe_lists,
    observe_rows,
    observe_verdicts,
    read_verdicts,
)
from occpipe.relations.vectors import read_asset

HOME = {"surfboard": ["sea", "sand"], "cat": ["couch", "pillow"], "car": ["road", "building-other"], "cup": ["table"]}


@pytest.fixture(scope="module")
def scorer() -> EmbeddingScorer:
    return EmbeddingScorer.from_arrays(*read_asset())


def recalibrated(result: Any) -> EmbeddingScorer:
    arrays, description = read_asset()
    return EmbeddingScorer.from_arrays(arrays, result.apply(description))


def observations(belong: int, strange: int) -> list[Observation]:
    """Things at home and elsewhere; every tenth of either kind is the other way round."""
    rng = np.random.default_rng(0)
    things, found = list(HOME), []
    for number in range(belong + strange):
        own, other = (things[i] for i in rng.choice(len(things), 2, replace=False))
        usual = (number < belong) == (number % 10 != 0)
        found.append(Observation(own, HOME[own if usual else other], number < belong))
    return found


def test_probabilities_match_the_shares_that_were_judged(scorer: EmbeddingScorer) -> None:
    seen = observations(900, 300)
    better = recalibrated(calibrate(scorer, seen))

    def cross_entropy(of: EmbeddingScorer) -> float:
        odds = of.log_odds([o.thing for o in seen], [o.context for o in seen])
        signs = np.array([1.0 if o.belongs else -1.0 for o in seen])
        return float(np.log1p(np.exp(-odds * signs)).mean())

    assert cross_entropy(better) < cross_entropy(scorer)
    odds = better.log_odds([o.thing for o in seen], [o.context for o in seen])
    assert float(np.mean(1 / (1 + np.exp(-odds)))) == pytest.approx(0.75, abs=0.02)


def test_the_cut_removes_the_wanted_share_of_what_belongs(scorer: EmbeddingScorer) -> None:
    seen = observations(2000, 500)
    result = calibrate(scorer, seen, 0.1)
    assert result.default_cut == result.cuts["0.1"]
    better = recalibrated(result)
    own = [o for o in seen if o.belongs]
    removed = np.mean([better.relation(o.thing, o.context) < result.default_cut - 1e-4 for o in own])
    assert removed <= 0.1


def test_a_calibration_builds_on_the_one_before(scorer: EmbeddingScorer) -> None:
    seen = observations(900, 300)
    once = recalibrated(calibrate(scorer, seen))
    again = calibrate(once, seen)
    assert again.scale == pytest.approx(1, abs=0.05)
    assert again.shift == pytest.approx(0, abs=0.1)


def test_few_verdicts_move_little(scorer: EmbeddingScorer) -> None:
    verdicts = [Observation("cat", HOME["cat"], False)] * 2 + [Observation("cat", HOME["cat"], True)] * 50
    few, many = calibrate(scorer, verdicts), calibrate(scorer, verdicts * 50)
    assert abs(few.scale - 1) < abs(many.scale - 1)
    with pytest.raises(ValueError, match="at least 50 are needed"):
        calibrate(scorer, verdicts[:20])
    with pytest.raises(ValueError, match="0 things"):
        calibrate(scorer, [Observation("qwxyz", ["sea"], True), Observation("cat", ["qwxyz"], True)])


def test_an_earlier_run_holds_the_share_within_each_class(scorer: EmbeddingScorer) -> None:
    """A class that would be removed from everywhere is kept, although nobody has judged it."""
    row: dict[str, Any] = {
        "objects": [
            {"label": "car", "score": 0.9},
            {"label": "surfboard", "score": 0.8},
            {"label": "cup", "score": 0.2},
        ],
        "stuff": [{"label": "road", "confidence": 0.9}, {"label": "building-other", "confidence": 0.7}],
    }
    seen = list(observe_rows([row] * 300, Policy()))
    assert {o.thing for o in seen} == {"car", "surfboard"}, "what was hardly seen says nothing"
    assert seen[1].context == {"car": 0.9, "road": 0.9, "building-other": 0.7}
    result = calibrate(scorer, seen)
    better = recalibrated(result)
    assert result.scale == 1
    assert set(result.priors) == {"car", "surfboard"}
    assert all(prior >= 0 for prior in result.priors.values())
    assert better.relation("surfboard", seen[1].context) >= result.default_cut - 0.02


def test_verdicts_are_joined_by_uri_or_id_and_by_place_or_class(tmp_path: Path) -> None:
    table = tmp_path / "verdicts.csv"
    table.write_text("image,object,verdict\na/1.jpg,0,remove\n77,cat,keep\nnowhere,cat,keep\n")
    objects = [{"label": "cat", "score": 0.4}, {"label": "cat", "score": 0.9}, {"label": "car", "score": 0.9}]
    rows = [
        {"image_id": 5, "uri": "a/1.jpg", "objects": objects, "stuff": [{"label": "road", "confidence": 0.8}]},
        {"image_id": 77, "uri": "a/2.jpg", "objects": objects, "stuff": None},
        {"image_id": 78, "uri": "a/3.jpg", "objects": None, "stuff": None},
    ]
    seen = list(observe_verdicts(rows, Policy(), read_verdicts(table)))
    assert seen == [
        Observation("cat", {"car": 0.9, "road": 0.8}, False),
        Observation("cat", {"car": 0.9}, True),
        Observation("cat", {"car": 0.9}, True),
    ]


def test_a_broken_verdict_is_named(tmp_path: Path) -> None:
    table = tmp_path / "verdicts.csv"
    table.write_text("image,object,verdict\na.jpg,0,keep\nb.jpg,0,maybe\n")
    with pytest.raises(ValueError, match="line 3"):
        read_verdicts(table)


def test_lists_are_seen_whole_and_thinned() -> None:
    images = [
        LabelledImage("a", ("boat", "person"), ("sea", "sky", "sand")),
        LabelledImage("b", ("bed", "cat"), ("pillow", "wall", "floor")),
    ]
    seen = observe_lists(images)
    assert sum(o.belongs is True for o in seen) == sum(o.belongs is False for o in seen) == 14
    assert {len(o.context) for o in seen} >= {2, 3, 4}
