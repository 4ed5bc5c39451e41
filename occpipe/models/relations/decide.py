"""From a segmentation and a relation scorer to a verdict per thing, with its reason; and the mask to fill.

The rules are asked in this order, and the first that applies is the reason:
kept_by_policy, low_confidence, removed_by_policy, too_small, too_large, no_context, then unrelated or related by the
rule. A doubtful thing is kept even where its class is to be removed, because a wrong mask spoils a good photo. Where a
calibrated decision has the last word, doubt is part of it, and low_confidence is the reason of a doubtful thing that stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from occpipe.core.classes import token
from occpipe.core.config import Inpainter, Policy
from occpipe.core.masks import rle_decode, union
from occpipe.core.types import Mask, Reason, Relation, SceneObject, Segment, Segmentation, Verdict
from occpipe.models.inpainters import MaskGrowth, grow_mask
from occpipe.models.relations import EmbeddingScorer, RelationScorer, SceneContext, scene_context
from occpipe.models.relations.decision import expected_relation, features


class Calibrated(Protocol):
    """What gives the probability that a thing belongs."""

    def belongs(self, label: str, values: NDArray[np.float64], /) -> float:
        """The probability for a thing of this class with these `features`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A thing goes where its relation is below `cut`; the relation is that of `decision`, or the expected one."""

    cut: float
    decision: Calibrated | None = None


def rule_of(policy: Policy, scorer: RelationScorer, segmenter: str = "") -> Rule:
    """The rule of a policy: a cut on the expected relation where it names one, else what was calibrated for the segmenter.

    For a segmenter without a calibration it is the scorer's own cut.
    """
    if policy.cut is not None:
        return Rule(policy.cut)
    decision = scorer.decisions.get(segmenter) if isinstance(scorer, EmbeddingScorer) else None
    if decision is None:
        return Rule(scorer.default_cut)
    return Rule(decision.cut(policy.max_touched), decision)


def decide(
    scene: Segmentation, scorer: RelationScorer, policy: Policy, rule: Rule | None = None
) -> tuple[SceneObject, ...]:
    """A verdict for each thing of a scene, in the order of its segments.

    The relation is the one that is expected over the classes that a thing may have, or what the rule makes of it; the
    evidence is that of the most probable class. Instances of one class are no context for each other (as in the paper:
    relations hold between classes).
    """
    rule = rule or rule_of(policy, scorer)
    context = context_of([(s.label, s.score) for s in scene.things], scene.stuff, policy, scorer)
    areas = _areas(scene.things, policy.area_scope)
    scored: dict[str, Relation] = {}
    objects = []
    for segment in scene.things:
        for share in segment.classes:
            if share.label not in scored:
                scored[share.label] = scorer.score(share.label, context.around(share.label))
        relation = _relation(segment, scored, context, rule)
        area = areas[id(segment)] / (scene.height * scene.width)
        verdict, reason = judge(segment.label, segment.score, area, relation, policy, rule)
        objects.append(SceneObject(segment, relation.score, verdict, reason, relation.evidence))
    return tuple(objects)


def _relation(segment: Segment, scored: Mapping[str, Relation], context: SceneContext, rule: Rule) -> Relation:
    own = scored[segment.label]
    known = {s.label: r for s in segment.classes if (r := scored[s.label].score) is not None}
    if own.score is None:
        return own
    expected = expected_relation(segment.classes, known)
    if rule.decision is None:
        return replace(own, score=expected)
    values = features(segment, expected, context.around(segment.label))
    return replace(own, score=rule.decision.belongs(segment.label, values))


def context_of(
    things: Iterable[tuple[str, float]], stuff: Mapping[str, float], policy: Policy, scorer: RelationScorer
) -> SceneContext:
    """The context in a scene: its things (label, score) and stuff that were seen with enough confidence.

    Classes that the policy keeps or protects stay in the photo, and so vouch fully for others.
    """
    seen: dict[str, float] = {}
    for name, score in things:
        if score >= policy.min_score:
            seen[name] = max(score, seen.get(name, 0.0))
    kept = _tokens((*policy.keep, *policy.protect))
    return scene_context(
        scorer,
        seen,
        {name: confidence for name, confidence in stuff.items() if confidence >= policy.min_stuff_confidence},
        [name for name in seen if token(name) in kept],
    )


def overrule(objects: Iterable[SceneObject], judged: Mapping[int, bool]) -> tuple[SceneObject, ...]:
    """The things with the verdicts of people over those of the policy: `judged` says, by place, what belongs."""
    return tuple(
        replace(thing, verdict=Verdict.KEEP, reason=Reason.KEPT_BY_REVIEW)
        if judged.get(place) is True
        else replace(thing, verdict=Verdict.REMOVE, reason=Reason.REMOVED_BY_REVIEW)
        if judged.get(place) is False
        else thing
        for place, thing in enumerate(objects)
    )


def removal_mask(objects: Iterable[SceneObject], policy: Policy, growth: Inpainter) -> Mask | None:
    """The mask to fill, H x W: all removed things, grown, minus protected things that stay; None for nothing.

    The growth takes in the soft edge and the halo that a segmenter leaves; see `Inpainter` for its unit. A fixed radius is
    in pixels of the masks, so of the photo as it was seen.
    """
    objects = tuple(objects)
    removed = union(o.segment.rle for o in objects if o.verdict is Verdict.REMOVE)
    if removed is None:
        return None
    mask = grow_mask(rle_decode(removed), _growth(growth))
    shielded = union(o.segment.rle for o in objects if o.verdict is Verdict.KEEP and is_protected(o.label, policy))
    if shielded is not None:
        mask = mask & (1 - rle_decode(shielded))
    return mask if mask.any() else None


def is_protected(label: str, policy: Policy) -> bool:
    """Whether a class is one that no removal of another thing may touch."""
    return token(label) in _tokens(policy.protect)


def _growth(settings: Inpainter) -> MaskGrowth:
    return MaskGrowth(
        fraction=settings.dilation,
        pixels=settings.dilation_pixels,
        iterations=settings.dilation_iterations,
        square=settings.dilation_kernel == "square",
    )


def judge(
    label: str, confidence: float, area: float, relation: Relation, policy: Policy, rule: Rule
) -> tuple[Verdict, Reason]:
    """Verdict and reason for one thing, seen with a confidence on a share of the image, by the rules in their order."""
    name = token(label)
    doubtful = confidence < policy.min_score
    if name in _tokens((*policy.keep, *policy.protect)):
        return Verdict.KEEP, Reason.KEPT_BY_POLICY
    if doubtful and (rule.decision is None or name in _tokens(policy.remove)):
        return Verdict.KEEP, Reason.LOW_CONFIDENCE
    if name in _tokens(policy.remove):
        return Verdict.REMOVE, Reason.REMOVED_BY_POLICY
    if area < policy.min_area:
        return Verdict.KEEP, Reason.TOO_SMALL
    if area > policy.max_area:
        return Verdict.KEEP, Reason.TOO_LARGE
    if relation.score is None or len(relation.evidence) < policy.min_context:
        return Verdict.KEEP, Reason.NO_CONTEXT
    if relation.score < rule.cut:
        return Verdict.REMOVE, Reason.UNRELATED
    return Verdict.KEEP, Reason.LOW_CONFIDENCE if doubtful else Reason.RELATED


def _areas(things: Iterable[Segment], scope: str) -> dict[int, int]:
    things = tuple(things)
    if scope == "instance":
        return {id(s): s.area for s in things}
    by_class: dict[str, int] = defaultdict(int)
    for segment in things:
        by_class[segment.label] += segment.area
    return {id(s): by_class[s.label] for s in things}


def _tokens(names: Iterable[str]) -> set[str]:
    return {token(name) for name in names}
