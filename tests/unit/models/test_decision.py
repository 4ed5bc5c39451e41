from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from occpipe.core.config import Policy
from occpipe.core.types import ClassShare, Reason, Segment, Segmentation, Verdict
from occpipe.models.relations import EmbeddingScorer, load_relations
from occpipe.models.relations.calibration import calibrate, observe_lists
from occpipe.models.relations.decide import Rule, decide, rule_of
from occpipe.models.relations.decision import FEATURES, Decision, expected_relation
from occpipe.models.relations.vectors import read_asset

LOWEST = (0.01, 0.02, 0.03, 0.04, 0.05, 0.1)
DECISION = Decision(0.0, (1.0, *[0.0] * (len(FEATURES) - 1)), {"dog": 3.0}, LOWEST, 1000, 10)


@pytest.fixture(scope="module")
def scorer() -> EmbeddingScorer:
    loaded = load_relations()
    assert isinstance(loaded, EmbeddingScorer)
    loaded.decisions = {"mine": DECISION}
    return loaded


def thing(*classes: ClassShare, chance: float = 0.9) -> Segment:
    mask = np.zeros((100, 100), np.uint8)
    mask[10:30, 10:30] = 1
    return Segment.from_mask(classes[0].label, True, classes[0].probability, mask, classes, chance)


def at_sea(*segments: Segment) -> Segmentation:
    return Segmentation(100, 100, segments, {"sea": 0.9, "sand": 0.8, "sky-other": 0.9})


TOILET = thing(ClassShare("toilet", 0.4), ClassShare("sink", 0.3))


def test_a_cut_asks_for_confidence_and_a_calibrated_decision_has_doubt_in_it(scorer: EmbeddingScorer) -> None:
    (by_cut,) = decide(at_sea(TOILET), scorer, Policy(cut=0.9))
    assert (by_cut.verdict, by_cut.reason) == (Verdict.KEEP, Reason.LOW_CONFIDENCE)
    (calibrated,) = decide(at_sea(TOILET), scorer, Policy(), Rule(0.9, DECISION))
    assert (calibrated.verdict, calibrated.reason) == (Verdict.REMOVE, Reason.UNRELATED)
    (kept,) = decide(at_sea(TOILET), scorer, Policy(), Rule(0.0, DECISION))
    assert (kept.verdict, kept.reason) == (Verdict.KEEP, Reason.LOW_CONFIDENCE)
    (sure,) = decide(at_sea(thing(ClassShare("boat", 0.9))), scorer, Policy(), Rule(0.0, DECISION))
    assert sure.reason is Reason.RELATED


def test_the_relation_is_the_expected_one_over_the_classes(scorer: EmbeddingScorer) -> None:
    alone = {name: scorer.relation(name, at_sea().stuff) for name in ("toilet", "surfboard")}
    either = thing(ClassShare("toilet", 0.3), ClassShare("surfboard", 0.1))
    (found,) = decide(at_sea(either), scorer, Policy(cut=0.1))
    assert found.relation == pytest.approx(0.75 * alone["toilet"] + 0.25 * alone["surfboard"])
    assert expected_relation(either.classes, {"surfboard": 0.8}) == pytest.approx(0.8), "unknown classes say nothing"
    (calibrated,) = decide(at_sea(either), scorer, Policy(), Rule(0.1, DECISION))
    assert calibrated.relation == pytest.approx(found.relation), "here its only feature is the expected relation"


def test_which_rule_decides(scorer: EmbeddingScorer) -> None:
    assert rule_of(Policy(cut=0.3), scorer, "mine") == Rule(0.3)
    assert rule_of(Policy(), scorer, "another") == Rule(scorer.default_cut)
    assert rule_of(Policy(max_touched=2), scorer, "mine") == Rule(0.03, DECISION)


def test_of_1000_ordinary_photos_no_more_are_touched_than_the_policy_allows() -> None:
    for touched in (0, 1, 5):
        assert sum(lowest < DECISION.cut(touched) for lowest in LOWEST) == touched
    assert DECISION.cut(50) == 0.1, "nothing is known beyond the photos that were kept"
    assert replace(DECISION, photos=200).cut(5) == 0.02, "1 of 200 photos"


def test_a_class_has_a_prior_and_a_decision_survives_a_file() -> None:
    values = np.zeros(len(FEATURES))
    assert DECISION.belongs("cat", values) == 0.5
    assert DECISION.belongs("dog", values) == pytest.approx(0.953, abs=1e-3)
    assert Decision.from_json(DECISION.as_json()) == DECISION
    with pytest.raises(ValueError, match="this version knows"):
        Decision.from_json(DECISION.as_json() | {"features": ["relation"]})


def test_another_calibration_of_the_relation_drops_the_decisions(scorer: EmbeddingScorer) -> None:
    from occpipe.models.relations.benchmark import LabelledImage

    images = [LabelledImage(str(n), ("boat", "dog")[n % 2 :][:1], ("sea", "sand")) for n in range(60)]
    _, description = read_asset()
    changed = calibrate(scorer, observe_lists(images, scorer), 0.1).apply(description | {"decisions": {"mine": {}}})
    assert changed["decisions"] == {}
