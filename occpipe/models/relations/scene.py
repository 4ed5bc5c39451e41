"""What counts as context in a scene: things vouch for each other only as far as they belong themselves.

A person with a handbag who walks into the picture would otherwise excuse each other. So a thing counts as context by
its confidence times its relation to the stuff of the scene; stuff, which nobody carries in, counts by its confidence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from occpipe.models.relations.scorer import RelationScorer


@dataclass(frozen=True, slots=True)
class SceneContext:
    """Things and stuff of a scene, each class with the weight in [0, 1] by which it counts as context."""

    things: Mapping[str, float]
    stuff: Mapping[str, float]

    def around(self, label: str) -> dict[str, float]:
        """The context of a thing: everything but its own class; things first, in the order in which they were given."""
        context = {name: weight for name, weight in self.things.items() if name != label}
        for name, weight in self.stuff.items():
            if name != label:
                context[name] = max(weight, context.get(name, 0.0))
        return context


def scene_context(
    scorer: RelationScorer, things: Mapping[str, float], stuff: Mapping[str, float], trusted: Collection[str] = ()
) -> SceneContext:
    """The context of a scene from the classes seen and their confidences.

    `trusted` are things that stay whatever their relation; they vouch fully, and so does everything where no stuff is
    known. With one thing class there is nobody to vouch for.
    """
    weights = dict(things)
    if len(weights) > 1:
        for name in (n for n in things if n not in trusted):
            belongs = scorer.score(name, {k: w for k, w in stuff.items() if k != name}).score
            if belongs is not None:
                weights[name] *= min(1.0, max(0.0, belongs))
    return SceneContext(weights, stuff)
