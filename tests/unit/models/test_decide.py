from __future__ import annotations

import numpy as np
import pytest

from occpipe.core.config import Inpainter, Policy
from occpipe.core.types import Evidence, Reason, Relation, Segment, Segmentation, Verdict
from occpipe.models.relations import Context
from occpipe.models.relations.decide import context_of, decide, overrule, removal_mask


class Table:
    """A scorer whose relations are written down: the mean of what is known of each context class."""

    default_cut = 0.4

    def __init__(self, relations: dict[str, float]) -> None:
        self.relations = relations
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def score(self, thing: str, context: Context) -> Relation:
        self.asked.append((thing, tuple(context)))
        evidence = [Evidence(name, self.relations[thing]) for name in context if thing in self.relations]
        return Relation(self.relations[thing], tuple(evidence)) if evidence else Relation(None)

    def relation(self, thing: str, context: Context) -> float:
        score = self.score(thing, context).score
        assert score is not None
        return score


def square(label: str, x: int, y: int, side: int, score: float = 0.9) -> Segment:
    mask = np.zeros((100, 100), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return Segment.from_mask(label, True, score, mask)


def scene(*segments: Segment) -> Segmentation:
    return Segmentation(100, 100, segments, {"sky-other": 0.9, "grass": 0.8, "sea": 0.1})


TABLE = Table({"dog": 0.8, "toilet": 0.1, "person": 0.1})


@pytest.mark.parametrize(
    ("segment", "policy", "verdict", "reason"),
    [
        (square("dog", 10, 10, 20), {}, Verdict.KEEP, Reason.RELATED),
        (square("toilet", 10, 10, 20), {}, Verdict.REMOVE, Reason.UNRELATED),
        (square("toilet", 10, 10, 20), {"cut": 0.05}, Verdict.KEEP, Reason.RELATED),
        (square("toilet", 10, 10, 3), {}, Verdict.KEEP, Reason.TOO_SMALL),
        (square("toilet", 0, 0, 80), {}, Verdict.KEEP, Reason.TOO_LARGE),
        (square("toilet", 10, 10, 20, 0.2), {}, Verdict.KEEP, Reason.LOW_CONFIDENCE),
        (square("toilet", 10, 10, 20, 0.2), {"remove": ["toilet"]}, Verdict.KEEP, Reason.LOW_CONFIDENCE),
        (square("dog", 10, 10, 3), {"remove": ["dog"]}, Verdict.REMOVE, Reason.REMOVED_BY_POLICY),
        (square("toilet", 10, 10, 20), {"keep": ["toilet"]}, Verdict.KEEP, Reason.KEPT_BY_POLICY),
        (square("person", 10, 10, 20), {}, Verdict.KEEP, Reason.KEPT_BY_POLICY),
        (square("person", 10, 10, 20), {"protect": []}, Verdict.REMOVE, Reason.UNRELATED),
        (square("unicorn", 10, 10, 20), {}, Verdict.KEEP, Reason.NO_CONTEXT),
        (square("toilet", 10, 10, 20), {"min_context": 3}, Verdict.KEEP, Reason.NO_CONTEXT),
    ],
)
def test_each_reason(segment: Segment, policy: dict[str, object], verdict: Verdict, reason: Reason) -> None:
    (item,) = decide(scene(segment), TABLE, Policy.model_validate(policy))
    assert (item.verdict, item.reason) == (verdict, reason)


def test_context_is_other_classes_and_confident_stuff() -> None:
    table = Table(TABLE.relations)
    dogs = square("dog", 0, 0, 20), square("dog", 50, 50, 20)
    objects = decide(scene(*dogs, square("toilet", 30, 0, 20), square("cup", 0, 70, 9, 0.1)), table, Policy())
    alone = ("sky-other", "grass")
    assert table.asked[:2] == [("dog", alone), ("toilet", alone)], "who vouches is asked with the stuff first"
    assert table.asked[2:] == [
        ("dog", ("toilet", *alone)),
        ("toilet", ("dog", *alone)),
        ("cup", ("dog", "toilet", *alone)),
    ]
    assert [o.label for o in objects] == ["dog", "dog", "toilet", "cup"]


def test_nothing_is_removed_without_context() -> None:
    alone = Segmentation(100, 100, (square("toilet", 10, 10, 20),), {})
    (item,) = decide(alone, TABLE, Policy())
    assert (item.verdict, item.reason, item.relation) == (Verdict.KEEP, Reason.NO_CONTEXT, None)


def test_context_comes_with_its_confidence_and_without_the_things_own_class() -> None:
    things = [("dog", 0.9), ("cat", 0.6), ("cat", 0.8), ("boat", 0.2)]
    stuff = {"sea": 0.5, "fog": 0.1, "dog": 0.9}
    context = context_of(things, stuff, Policy(), Table({}))
    assert context.around("dog") == {"cat": 0.8, "sea": 0.5}
    assert context.around("cat") == {"dog": 0.9, "sea": 0.5}


def test_things_vouch_for_each_other_as_far_as_they_belong() -> None:
    """Two strange things do not excuse each other; what the policy keeps stays in the photo, and so vouches fully."""
    table = Table({"toilet": 0.1, "dog": 0.8, "person": 0.1})
    context = context_of([("toilet", 0.9), ("dog", 0.9), ("person", 0.9)], {"grass": 0.7}, Policy(), table)
    assert context.around("cat") == pytest.approx({"toilet": 0.09, "dog": 0.72, "person": 0.9, "grass": 0.7})
    assert ("toilet", ("grass",)) in table.asked, "asked with the stuff alone"
    assert context_of([("toilet", 0.9)], {"grass": 0.7}, Policy(), table).around("dog")["toilet"] == 0.9
    without_stuff = context_of([("toilet", 0.9), ("dog", 0.8)], {}, Policy(), table)
    assert without_stuff.around("cat") == {"toilet": 0.9, "dog": 0.8}


def test_class_areas_sum_over_instances() -> None:
    policy = Policy(min_area=0.02, max_area=0.15, area_scope="class")
    pair = decide(scene(square("toilet", 0, 0, 12), square("toilet", 50, 50, 12)), TABLE, policy)
    assert [o.reason for o in pair] == [Reason.UNRELATED] * 2
    (alone,) = decide(scene(square("toilet", 0, 0, 12)), TABLE, policy)
    assert alone.reason is Reason.TOO_SMALL


def test_mask_grows_and_spares_the_protected() -> None:
    policy, growth = Policy(), Inpainter(dilation_pixels=5)
    objects = decide(scene(square("toilet", 40, 40, 20), square("person", 60, 40, 20)), TABLE, policy)
    mask = removal_mask(objects, policy, growth)
    assert mask is not None
    assert mask[40:60, 36:60].all()
    assert not mask[40:60, 60:80].any(), "no pixel of a protected person is filled"
    assert removal_mask(decide(scene(square("dog", 0, 0, 20)), TABLE, policy), policy, growth) is None


def test_people_overrule_the_policy() -> None:
    """A removed person is filled whole, though protected; one that stays is spared as before."""
    segments = (square("person", 10, 10, 20), square("person", 60, 60, 20), square("toilet", 85, 60, 10))
    objects = overrule(decide(scene(*segments), TABLE, Policy()), {0: False, 2: True})
    assert [(o.verdict, o.reason) for o in objects] == [
        (Verdict.REMOVE, Reason.REMOVED_BY_REVIEW),
        (Verdict.KEEP, Reason.KEPT_BY_POLICY),
        (Verdict.KEEP, Reason.KEPT_BY_REVIEW),
    ]
    mask = removal_mask(objects, Policy(), Inpainter(dilation_pixels=2))
    assert mask is not None
    assert mask[10:30, 10:30].all()
    assert not mask[50:, 50:].any()


def test_the_papers_dilation() -> None:
    policy = Policy()
    growth = Inpainter(dilation_pixels=2, dilation_iterations=3, dilation_kernel="square")
    mask = removal_mask(decide(scene(square("toilet", 40, 40, 20)), TABLE, policy), policy, growth)
    assert mask is not None
    assert mask.sum() == 32 * 32
