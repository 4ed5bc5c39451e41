"""The context of a scene: a thing counts as context only as far as it belongs itself.

Otherwise a person and a handbag that both do not belong would justify each other. So the weight of a thing is its
confidence times its relation to the stuff of the scene. The weight of stuff is its confidence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from occpipe.models.relations.scorer import RelationScorer


@dataclass(frozen=True, slots=True)
class SceneContext:
    """Things and stuff of a scene, each class with its weight as context, in [0, 1]."""

    things: Mapping[str, float]
    stuff: Mapping[str, float]

    def around(self, label: str) -> dict[str, float]:
        """The context of a thing: everything except its own class; things first, in their order."""
        context = {name: weight for name, weight in self.things.items() if name != label}
        for name, weight in self.stuff.items():
            if name != label:
                context[name] = max(weight, context.get(name, 0.0))
        return context


def scene_context(
    scorer: RelationScorer, things: Mapping[str, float], stuff: Mapping[str, float], trusted: Collection[str] = ()
) -> SceneContext:
    """The context of a scene from its classes and their confidences.

    `trusted` are things that stay whatever their relation; they count fully, and so does everything if no stuff is known.
    With one thing class the weights do not matter.
    """
    weights = dict(things)
    if len(weights) > 1:
        for name in (n for n in things if n not in trusted):
            belongs = scorer.score(name, {k: w for k, w in stuff.items() if k != name}).score
            if belongs is not None:
                weights[name] *= min(1.0, max(0.0, belongs))
    return SceneContext(weights, stuff)
