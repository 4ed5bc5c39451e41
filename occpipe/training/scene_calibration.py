"""Fit the probability that a thing belongs on what a segmenter itself sees in composed scenes and ordinary photos.

In a scene the pasted thing does not belong, and the other things do; in an ordinary photo all things do. So the segmenter's
mistakes count: a bush that it takes for broccoli is a thing that belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from occpipe.core.classes import token
from occpipe.core.config import Policy
from occpipe.core.types import Image, Mask, Reason, Segmentation
from occpipe.models.relations import RelationScorer
from occpipe.models.relations.decide import Rule, decide
from occpipe.models.relations.decision import FEATURES, KEPT, Decision
from occpipe.models.segmenters import Segmenter
from occpipe.training.scenes import Scene

STRANGE, OWN = 0.6, 0.3
"""Share of a thing that lies on the intruder from which it is the intruder, and below which it is something else."""
WEIGHT_SPREAD, BIAS_SPREAD, PRIOR_SPREAD = 3.0, 10.0, 1.0
"""Standard deviations of what is fitted, in log-odds; a class needs some sightings before its prior moves."""
_STEPS = 50

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A thing that could go, as a segmenter saw it: the photo, its class, its features, and whether it is an intruder."""

    photo: int
    label: str
    values: Floats
    strange: bool


@dataclass(slots=True)
class _Recorder:
    """Stands in for a decision, and keeps what it is asked about."""

    asked: list[Floats] = field(default_factory=list)

    def belongs(self, _: str, values: Floats) -> float:
        self.asked.append(values)
        return 1.0


@dataclass(slots=True)
class Sightings:
    """Things of photos, of `ordinary` photos and of `scenes`; `add` takes what was seen in one."""

    scorer: RelationScorer
    policy: Policy
    things: list[Sighting] = field(default_factory=list)
    ordinary: list[int] = field(default_factory=list)
    scenes: int = 0
    photos: int = 0

    def add(self, seen: Segmentation, intruder: Mask | None = None, *, ordinary: bool = False) -> None:
        """Take the things of a photo that neither the policy nor their size keeps; `intruder` is an outline, H x W."""
        recorder = _Recorder()
        objects = decide(seen, self.scorer, self.policy, Rule(0.0, recorder))
        values = iter(recorder.asked)
        for item in objects:
            if item.relation is None:
                continue
            asked = next(values)
            if item.reason not in (Reason.RELATED, Reason.LOW_CONFIDENCE):
                continue
            on_it = 0.0 if intruder is None else float(item.segment.mask[intruder > 0].sum()) / item.segment.area
            if not OWN <= on_it < STRANGE:
                self.things.append(Sighting(self.photos, item.label, asked, on_it >= STRANGE))
        if ordinary:
            self.ordinary.append(self.photos)
        self.scenes += intruder is not None
        self.photos += 1


def observe(
    segmenter: Segmenter,
    scorer: RelationScorer,
    policy: Policy,
    scenes: Sequence[Scene],
    ordinary: Iterable[Image],
    progress: Callable[[str], None] = lambda _: None,
) -> Sightings:
    """What a segmenter sees in scenes, in their untouched photos and in ordinary photos."""
    found = Sightings(scorer, policy)
    for scene in scenes:
        found.add(segmenter([scene.image])[0], scene.outline)
    for image in {scene.name: scene.untouched for scene in scenes}.values():
        found.add(segmenter([image])[0])
    progress(f"{len(scenes)} scenes seen")
    for image in ordinary:
        found.add(segmenter([image])[0], ordinary=True)
    progress(f"{len(found.ordinary)} ordinary photos seen")
    return found


def fit(sightings: Sightings) -> Decision:
    """The most probable logistic regression with normal priors; raises ValueError where a kind of photo is missing."""
    things = sightings.things
    if not any(thing.strange for thing in things) or not sightings.ordinary:
        raise ValueError("a calibration needs ordinary photos, and scenes in which the segmenter sees an intruder")
    names, which = np.unique([token(thing.label) for thing in things], return_inverse=True)
    x = np.zeros((len(things), 1 + len(FEATURES) + len(names)))
    x[:, 0] = 1
    x[:, 1 : 1 + len(FEATURES)] = [thing.values for thing in things]
    x[np.arange(len(things)), 1 + len(FEATURES) + which] = 1
    spread = np.array([BIAS_SPREAD, *[WEIGHT_SPREAD] * len(FEATURES), *[PRIOR_SPREAD] * len(names)])
    theta = _regress(x, np.array([not thing.strange for thing in things]), spread**-2.0)
    weights, priors = theta[1 : 1 + len(FEATURES)], theta[1 + len(FEATURES) :]
    odds = x @ theta
    lowest = dict.fromkeys(sightings.ordinary, 1.0)
    for thing, value in zip(things, odds, strict=True):
        if thing.photo in lowest:
            lowest[thing.photo] = min(lowest[thing.photo], float(1 / (1 + np.exp(-value))))
    kept = max(1, round(KEPT * len(lowest)))
    return Decision(
        float(theta[0]),
        tuple(float(w) for w in weights),
        {str(name): round(float(prior), 4) for name, prior in zip(names, priors, strict=True)},
        tuple(sorted(lowest.values())[: kept + 1]),
        len(lowest),
        sightings.scenes,
    )


def _regress(x: Floats, belongs: NDArray[np.bool_], precision: Floats) -> Floats:
    """Newton's method with halved steps; the penalised likelihood is strictly concave."""
    signs = np.where(belongs, 1.0, -1.0)

    def cost(theta: Floats) -> float:
        return float(np.logaddexp(0, -signs * (x @ theta)).sum() + (precision * theta**2).sum() / 2)

    theta = np.zeros(x.shape[1])
    current = cost(theta)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ theta, -500, 500)))
        gradient = x.T @ (belongs - p) - precision * theta
        if np.abs(gradient).max() < 1e-6 * len(x):
            break
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(precision), gradient)
        while (proposed := cost(theta + step)) > current and np.abs(step).max() > 1e-12:
            step = step / 2
        theta, current = theta + step, min(current, proposed)
    return theta


def lines(decision: Decision) -> Iterator[str]:
    """What was fitted, for people."""
    yield f"{decision.scenes} scenes, {decision.photos} ordinary photos"
    terms = [f"{weight:+.2f} {name}" for name, weight in zip(FEATURES, decision.weights, strict=True)]
    yield f"log-odds {decision.bias:+.2f} " + " ".join(terms)
    cuts = [f"{decision.cut(touched):.4f} for {touched}" for touched in (1, 2, 5, 10, 20, 50)]
    yield "a thing goes below " + ", ".join(cuts) + " of 1,000 ordinary photos touched"
