"""From scores to a probability that a thing belongs, and to the cut for a wanted share of false removals.

What is known may come from label lists (own things and drawn intruders), from human verdicts, or from an earlier run
alone, whose things are then all taken to belong: a cut that removes 2% of all things removes at most about 2% of those
that belong, since intruders are rare.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from occpipe.config import Policy
from occpipe.decide import context_of
from occpipe.relations.benchmark import LabelledImage, as_seen, make_cases
from occpipe.relations.scorer import Context, EmbeddingScorer

Floats64 = NDArray[np.float64]

FALSE_REMOVAL = 0.02
"""The wanted share of things that belong and are removed all the same."""

SHARES = (0.01, 0.02, 0.03, 0.05, 0.1)
"""The shares of false removal for which a cut is stored."""

SCALE_SPREAD, SHIFT_SPREAD, PRIOR_SPREAD = 0.5, 3.0, 0.7
"""Standard deviations of what a calibration may change, in log-odds: few verdicts move little, thousands what they say."""

FEW = 20
"""How many things of a class it takes until half of what its scores ask for is granted."""


class Observation(NamedTuple):
    """A thing in its context, and whether it belongs there; None = nobody has said."""

    thing: str
    context: Context
    belongs: bool | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How log-odds become a probability, and where to cut it.

    log-odds * `scale` + `shift` + `priors` of the class; `cuts` by share of false removal, `default_cut` for the wanted.
    """

    scale: float
    shift: float
    priors: dict[str, float]
    default_cut: float
    cuts: dict[str, float]

    def apply(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """The description of a relation file with this calibration on top of the one it has."""
        before = description["calibration"]
        scale = self.scale * before["scale"]
        shift = self.scale * before["shift"] + self.shift
        return dict(description) | {
            "calibration": {"scale": round(scale, 6), "shift": round(shift, 6)},
            "priors": {token: round(value, 4) for token, value in sorted(self.priors.items())},
            "default_cut": self.default_cut,
            "cuts": self.cuts,
        }


def observe_lists(images: Sequence[LabelledImage], seed: int = 0) -> list[Observation]:
    """Own things and intruders of label lists, in contexts as they come in practice.

    Complete, as a segmenter sees them with its confidences, and of at most five and two classes; see `benchmark`.
    """
    cases = [
        *make_cases(images, seed, 2),
        *as_seen(make_cases(images, seed + 1, 3), images, seed),
        *make_cases(images, seed + 2, 1, at_most=5),
        *make_cases(images, seed + 3, 1, at_most=2),
    ]
    return [Observation(t, c.context, own) for c in cases for t, own in ((c.own, True), (c.intruder, False))]


def observe_rows(rows: Iterable[Mapping[str, Any]], policy: Policy) -> Iterator[Observation]:
    """The things of published rows (columns objects, stuff) that were seen with enough confidence; nobody has judged."""
    for row in rows:
        for item in _confident(row, policy):
            yield Observation(item["label"], _context(row, item, policy), None)


def observe_verdicts(
    rows: Iterable[Mapping[str, Any]], policy: Policy, verdicts: Mapping[str, Sequence[tuple[str, bool]]]
) -> Iterator[Observation]:
    """The judged things of published rows (columns image_id, uri, objects, stuff); see `read_verdicts`."""
    for row in rows:
        for key in (str(row["uri"]), str(row["image_id"])):
            for wanted, belongs in verdicts.get(key, ()):
                for number, item in enumerate(row["objects"] or ()):
                    if wanted in (str(number), item["label"]):
                        yield Observation(item["label"], _context(row, item, policy), belongs)


def read_verdicts(path: Path) -> dict[str, list[tuple[str, bool]]]:
    """Human verdicts by image, from CSV with the columns image, object, verdict.

    An image is a uri or an image_id of the Parquet; an object its place in the row's `objects` (0 = first) or a class
    name, which stands for all of that class; a verdict is keep or remove. Raises ValueError, naming the line.
    """
    found: dict[str, list[tuple[str, bool]]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream), 2):
            image, thing, verdict = (str(row.get(name) or "").strip() for name in ("image", "object", "verdict"))
            if not image or not thing or verdict not in ("keep", "remove"):
                raise ValueError(f"{path}, line {number}: needs image, object, and a verdict keep or remove")
            found.setdefault(image, []).append((thing, verdict == "keep"))
    return found


def _confident(row: Mapping[str, Any], policy: Policy) -> list[Mapping[str, Any]]:
    return [item for item in row["objects"] or () if item["score"] >= policy.min_score]


def _context(row: Mapping[str, Any], item: Mapping[str, Any], policy: Policy) -> dict[str, float]:
    things = [(o["label"], o["score"]) for o in row["objects"]]
    stuff = {s["label"]: s["confidence"] for s in row["stuff"] or ()}
    return context_of(item["label"], things, stuff, policy)


def calibrate(
    scorer: EmbeddingScorer,
    observations: Iterable[Observation],
    false_removal: float = FALSE_REMOVAL,
    *,
    per_class: bool = False,
) -> Calibration:
    """A calibration on top of the scorer's own.

    Where both kinds of thing are known, the most probable logistic regression (Platt, 1999) with an intercept per class,
    all drawn to "no change" by normal priors. `per_class`, and always where nobody has judged: a class of which more
    than the wanted share would go has its prior raised until it does not, fully for well-observed classes.
    Things of unknown classes, and without any known context, are left out. Raises ValueError for too few observations.
    """
    vectors = scorer.vectors
    usable = [
        o for o in observations if o.thing in vectors and any(name in vectors and name != o.thing for name in o.context)
    ]
    belongs = np.array([o.belongs is not False for o in usable], bool)
    if belongs.sum() * false_removal < 1:
        raise ValueError(
            f"{belongs.sum()} things that belong, in a known context, are too few for a cut at {false_removal:.1%} "
            f"false removal: at least {int(np.ceil(1 / false_removal))} are needed"
        )
    tokens = [vectors.require(o.thing) for o in usable]
    x = scorer.log_odds([o.thing for o in usable], [o.context for o in usable]).astype(np.float64)
    scale, shift, priors = 1.0, 0.0, dict.fromkeys(sorted(set(tokens)), 0.0)
    if not belongs.all():
        scale, shift, priors = _regress(x, belongs, tokens)
    x = x * scale + shift + np.array([priors[t] for t in tokens])
    if per_class or belongs.all():
        cut = np.quantile(x[belongs], false_removal)
        for token in priors:
            scores = x[[b and t == token for b, t in zip(belongs, tokens, strict=True)]]
            if len(scores):
                lacking = max(0.0, float(cut - np.quantile(scores, false_removal)))
                priors[token] += lacking * len(scores) / (len(scores) + FEW)
                x[[t == token for t in tokens]] += lacking * len(scores) / (len(scores) + FEW)
    probability = 1 / (1 + np.exp(-x[belongs]))
    shares = sorted({*SHARES, false_removal})
    cuts = {f"{share:g}": round(float(np.quantile(probability, share)), 4) for share in shares}
    return Calibration(scale, shift, priors, cuts[f"{false_removal:g}"], cuts)


def _regress(x: Floats64, belongs: NDArray[np.bool_], tokens: Sequence[str]) -> tuple[float, float, dict[str, float]]:
    """Scale, shift and class priors: Newton's steps of a logistic regression with normal priors."""
    names = sorted(set(tokens))
    column = {name: 2 + number for number, name in enumerate(names)}
    columns = np.array([column[t] for t in tokens])
    size = 2 + len(names)
    theta, target = np.zeros(size), np.zeros(size)
    theta[0] = target[0] = 1.0
    precision = np.array([SCALE_SPREAD, SHIFT_SPREAD, *[PRIOR_SPREAD] * len(names)]) ** -2.0
    for _ in range(25):
        p = 1 / (1 + np.exp(-(x * theta[0] + theta[1] + theta[columns])))
        slope, bend = belongs - p, p * (1 - p)
        gradient = np.bincount(columns, slope, size)
        gradient[:2] = (slope * x).sum(), slope.sum()
        hessian = np.diag(np.bincount(columns, bend, size))
        hessian[0, 0], hessian[1, 1] = (bend * x * x).sum(), bend.sum()
        hessian[0, 1] = hessian[1, 0] = (bend * x).sum()
        hessian[0, 2:] = hessian[2:, 0] = np.bincount(columns, bend * x, size)[2:]
        hessian[1, 2:] = hessian[2:, 1] = np.bincount(columns, bend, size)[2:]
        theta += np.linalg.solve(hessian + np.diag(precision), gradient - precision * (theta - target))
    return float(theta[0]), float(theta[1]), {name: float(theta[column[name]]) for name in names}
