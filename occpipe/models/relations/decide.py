"""From a segmentation and a relation scorer to a verdict per thing, with its reason; and the mask to fill.

The rules are asked in this order, and the first that applies is the reason:
kept_by_policy, low_confidence, removed_by_policy, too_small, too_large, no_context, then unrelated or related by the
cut. A doubtful thing is kept even where its class is to be removed, because a wrong mask spoils a good photo.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from occpipe.core.classes import token
from occpipe.core.config import Inpainter, Policy
from occpipe.core.masks import rle_decode, union
from occpipe.core.types import Mask, Reason, Relation, SceneObject, Segment, Segmentation, Verdict
from occpipe.models.inpainters import MaskGrowth, grow_mask
from occpipe.models.relations import RelationScorer, SceneContext, scene_context


def decide(scene: Segmentation, scorer: RelationScorer, policy: Policy) -> tuple[SceneObject, ...]:
    """A verdict for each thing of a scene, in the order of its segments.

    Instances of one class share their relation (as in the paper: relations hold between classes), and are no context for
    each other.
    """
    things = [(s.label, s.score) for s in scene.things]
    context = context_of(things, scene.stuff, policy, scorer)
    areas = _areas(scene.things, policy.area_scope)
    relations: dict[str, Relation] = {}
    objects = []
    cut = cut_of(policy, scorer)
    for segment in scene.things:
        if segment.label not in relations:
            relations[segment.label] = scorer.score(segment.label, context.around(segment.label))
        relation = relations[segment.label]
        area = areas[id(segment)] / (scene.height * scene.width)
        verdict, reason = judge(segment.label, segment.score, area, relation, policy, cut)
        objects.append(SceneObject(segment, relation.score, verdict, reason, relation.evidence))
    return tuple(objects)


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


def cut_of(policy: Policy, scorer: RelationScorer) -> float:
    """The relation below which a thing does not belong: the policy's, or else the scorer's own."""
    return scorer.default_cut if policy.cut is None else policy.cut


def judge(
    label: str, confidence: float, area: float, relation: Relation, policy: Policy, cut: float
) -> tuple[Verdict, Reason]:
    """Verdict and reason for one thing, seen with a confidence on a share of the image, by the rules in their order."""
    name = token(label)
    if name in _tokens((*policy.keep, *policy.protect)):
        return Verdict.KEEP, Reason.KEPT_BY_POLICY
    if confidence < policy.min_score:
        return Verdict.KEEP, Reason.LOW_CONFIDENCE
    if name in _tokens(policy.remove):
        return Verdict.REMOVE, Reason.REMOVED_BY_POLICY
    if area < policy.min_area:
        return Verdict.KEEP, Reason.TOO_SMALL
    if area > policy.max_area:
        return Verdict.KEEP, Reason.TOO_LARGE
    if relation.score is None or len(relation.evidence) < policy.min_context:
        return Verdict.KEEP, Reason.NO_CONTEXT
    if relation.score < cut:
        return Verdict.REMOVE, Reason.UNRELATED
    return Verdict.KEEP, Reason.RELATED


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
