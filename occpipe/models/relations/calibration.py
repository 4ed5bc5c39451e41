"""From scores to a probability that a thing belongs, and to the cut for a wanted share of false removals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from occpipe.models.relations.benchmark import LabelledImage, as_seen, make_cases, split_context
from occpipe.models.relations.scene import scene_context
from occpipe.models.relations.scorer import Context, EmbeddingScorer

Floats64 = NDArray[np.float64]

FALSE_REMOVAL = 0.02
"""The wanted share of things that belong and are removed all the same."""

SHARES = (0.01, 0.02, 0.03, 0.05, 0.1)
"""The shares of false removal for which a cut is stored."""

SCALE_SPREAD, SHIFT_SPREAD, PRIOR_SPREAD = 0.5, 3.0, 0.15
"""Standard deviations of what a calibration may change, in log-odds: few verdicts move little, thousands what they say.

The last one by two-fold validation within the calibration part of our lists: 0.15 gave the best likelihood, 0.7 cost
0.002 AUC.
"""

SMALLEST = 1e-6
"""Cuts keep this distance from 0 and 1, so that their log-odds are finite."""


class Observation(NamedTuple):
    """A thing in its context, and whether it belongs there; None = nobody has said."""

    thing: str
    context: Context
    belongs: bool | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How log-odds become a probability, and where to cut it.

    Log-odds * `scale` + `shift` + `priors` of the class; `cuts` by share of false removal, `default_cut` for the wanted
    one, `false_removal`; fitted on `things` observations, of which `strange` were judged not to belong.
    """

    scale: float
    shift: float
    priors: dict[str, float]
    default_cut: float
    cuts: dict[str, float]
    false_removal: float
    things: int
    strange: int

    def apply(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """The description of a relation file with this calibration on top of the one it has."""
        before, priors = description["calibration"], description.get("priors", {})
        tokens = sorted({*priors, *self.priors})
        return dict(description) | {
            "calibration": {
                "scale": self.scale * before["scale"],
                "shift": self.scale * before["shift"] + self.shift,
                "false_removal": self.false_removal,
                "things": self.things,
                "strange": self.strange,
            },
            "priors": {t: self.scale * priors.get(t, 0.0) + self.priors.get(t, 0.0) for t in tokens},
            "default_cut": self.default_cut,
            "cuts": self.cuts,
            "decisions": {},  # they were fitted on the relations before
        }


def observe_lists(images: Sequence[LabelledImage], scorer: EmbeddingScorer, seed: int = 0) -> list[Observation]:
    """Own things and intruders of label lists, in contexts as they come in practice.

    Complete, as a segmenter sees them with its confidences, and of at most five and two classes (see `benchmark`); things
    of the context count as far as they belong (see `scene`).
    """
    cases = [
        *make_cases(images, seed, 2),
        *as_seen(make_cases(images, seed + 1, 3), images, seed),
        *make_cases(images, seed + 2, 1, at_most=5),
        *make_cases(images, seed + 3, 1, at_most=2),
    ]
    observed = []
    for case in cases:
        context = scene_context(scorer, *split_context(case.context)).around(case.own)
        observed += [Observation(case.own, context, True), Observation(case.intruder, context, False)]
    return observed


def calibrate(
    scorer: EmbeddingScorer,
    observations: Iterable[Observation],
    false_removal: float = FALSE_REMOVAL,
    *,
    per_class: bool = False,
) -> Calibration:
    """A calibration on top of the scorer's own.

    Where things of both kinds were judged, the most probable logistic regression (Platt, 1999) with an intercept per
    class. Then the cut below which the wanted share of what belongs lies; where nobody has judged, of all things. With
    `per_class`, and always where nobody has judged, a class that was seen often enough to tell (1 / `false_removal`
    times) and of which more would go has its prior raised until no more than that share of it does. Things of unknown
    classes, and without any known context, are left out. Raises ValueError for too few observations.
    """
    known = scorer.vectors
    usable = [o for o in observations if o.thing in known and any(n in known and n != o.thing for n in o.context)]
    belongs = np.array([o.belongs is not False for o in usable], bool)
    if belongs.sum() * false_removal < 1:
        raise ValueError(
            f"{belongs.sum()} things that belong, in a known context, are too few for a cut at {false_removal:.1%} "
            f"false removal: at least {int(np.ceil(1 / false_removal))} are needed"
        )
    names, token = np.unique([known.require(o.thing) for o in usable], return_inverse=True)
    x = scorer.log_odds([o.thing for o in usable], [o.context for o in usable]).astype(np.float64)
    scale, shift, priors = 1.0, 0.0, np.zeros(len(names))
    if not belongs.all():
        scale, shift, priors = _regress(x, belongs, token)
        x = x * scale + shift + priors[token]
    cuts = {f"{share:g}": _cut(x[belongs], share) for share in sorted({*SHARES, false_removal})}
    cut = cuts[f"{false_removal:g}"]
    if per_class or all(o.belongs is None for o in usable):
        priors = priors + _raise(x[belongs], token[belongs], len(names), cut, false_removal)
    moved = {str(name): float(prior) for name, prior in zip(names, priors, strict=True) if prior}
    return Calibration(scale, shift, moved, cut, cuts, false_removal, len(usable), int((~belongs).sum()))


def _cut(log_odds: Floats64, share: float) -> float:
    """The probability below which at most a share of the log-odds lie."""
    odds = float(np.quantile(log_odds, share, method="lower"))
    probability = float(1 / (1 + np.exp(-np.clip(odds, -60, 60))))
    return float(np.clip(probability - SMALLEST, SMALLEST, 1 - SMALLEST))  # float32 scores may lie a rounding below


def _raise(log_odds: Floats64, token: NDArray[np.int64], classes: int, cut: float, share: float) -> Floats64:
    """What each class lacks for no more than a share of it to lie below the cut; 0 for a class seen too rarely to tell."""
    wanted = np.log(cut / (1 - cut)) + SMALLEST / (cut * (1 - cut))
    lacking = np.zeros(classes)
    for number in range(classes):
        scores = log_odds[token == number]
        if len(scores) * share >= 1:
            lacking[number] = max(0.0, wanted - np.quantile(scores, share, method="lower"))
    return lacking


def _regress(x: Floats64, belongs: NDArray[np.bool_], token: NDArray[np.int64]) -> tuple[float, float, Floats64]:
    """Scale, shift and class priors of a logistic regression with normal priors, by Newton's method with halved steps.

    The penalised likelihood is strictly concave, so a step that is short enough raises it. Raises ValueError where the
    judgements contradict the scores, so that a lower score would mean that a thing belongs.
    """
    size = 2 + int(token.max()) + 1
    columns = token + 2
    centre = np.zeros(size)
    centre[0] = 1.0
    precision = np.array([SCALE_SPREAD, SHIFT_SPREAD, *[PRIOR_SPREAD] * (size - 2)]) ** -2.0
    signs = np.where(belongs, 1.0, -1.0)

    def cost(theta: Floats64) -> float:
        odds = x * theta[0] + theta[1] + theta[columns]
        return float(np.logaddexp(0, -signs * odds).sum() + (precision * (theta - centre) ** 2).sum() / 2)

    theta, current = centre.copy(), cost(centre)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(x * theta[0] + theta[1] + theta[columns], -500, 500)))
        slope, bend = belongs - p, p * (1 - p)
        gradient: Floats64 = np.bincount(columns, slope, size).astype(np.float64)
        gradient[:2] = (slope * x).sum(), slope.sum()
        gradient = gradient - precision * (theta - centre)
        if np.abs(gradient).max() < 1e-6 * len(x):
            break
        hessian = np.diag(np.bincount(columns, bend, size))
        hessian[0, 0], hessian[1, 1] = (bend * x * x).sum(), bend.sum()
        hessian[0, 1] = hessian[1, 0] = (bend * x).sum()
        hessian[0, 2:] = hessian[2:, 0] = np.bincount(columns, bend * x, size)[2:]
        hessian[1, 2:] = hessian[2:, 1] = np.bincount(columns, bend, size)[2:]
        step = np.linalg.solve(hessian + np.diag(precision), gradient)
        while (proposed := cost(theta + step)) > current and np.abs(step).max() > 1e-12:
            step = step / 2
        theta, current = theta + step, min(current, proposed)
    if theta[0] <= 0:
        raise ValueError("the judgements contradict the scores: what scores lower was judged to belong more often")
    return float(theta[0]), float(theta[1]), theta[2:]
