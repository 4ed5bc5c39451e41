"""One calibrated decision: the probability that a thing belongs, from all that is known of it.

That is a logistic regression over its expected relation, how surely it is some thing and one class, and how much context
there is. It is fitted on what a segmenter itself sees in composed scenes and in ordinary photos
(`occpipe.training.scene_calibration`), so what that segmenter gets wrong is part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occpipe.core.classes import token
from occpipe.core.types import ClassShare, Segment

_MAIN = ("relation", "thing", "score")
FEATURES = (
    *_MAIN,
    *(f"{one} x {other}" for place, one in enumerate(_MAIN) for other in _MAIN[place:]),
    *("second", "context"),
)
_CLOSEST = 1e-3
"""Probabilities keep this distance from 0 and 1, so that their log-odds are finite."""
KEPT = 0.05
"""Share of ordinary photos whose lowest probability is kept: no policy wants more of them touched."""


def features(segment: Segment, expected: float, context: Mapping[str, float]) -> NDArray[np.float64]:
    """What is known of a thing, in the order of `FEATURES`.

    `expected` is its expected relation, `context` holds the weight of each class around it. Products let a doubtful
    sighting count for less: what is hardly seen as one class is often nothing strange at all.
    """
    main = [_log_odds(probability) for probability in (expected, segment.thing, segment.score)]
    products = [one * other for place, one in enumerate(main) for other in main[place:]]
    second = max((share.probability for share in segment.classes[1:2]), default=0.0)
    return np.array([*main, *products, second / max(segment.score, _CLOSEST), np.log1p(sum(context.values()))])


def expected_relation(classes: Sequence[ClassShare], relations: Mapping[str, float]) -> float:
    """The mean relation over the classes that a thing may have, by their probability; some of them are known."""
    known = [share for share in classes if share.label in relations]
    total = sum(share.probability for share in known)
    return sum(share.probability * relations[share.label] for share in known) / max(total, _CLOSEST)


@dataclass(frozen=True, slots=True)
class Decision:
    """A calibration for one segmenter.

    The log-odds that a thing belongs are `bias` + `weights` . features + `priors` of the class. `lowest` are the lowest
    probabilities of ordinary photos, one a photo and in rising order, of `photos` that were looked at; `scenes` were
    composed.
    """

    bias: float
    weights: tuple[float, ...]
    priors: Mapping[str, float]
    lowest: tuple[float, ...]
    photos: int
    scenes: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decision:
        """A decision of a relation file; ValueError where it has other features than this version."""
        if tuple(values["features"]) != FEATURES:
            raise ValueError(
                f"a decision over {', '.join(values['features'])}, this version knows {', '.join(FEATURES)}"
            )
        lists = {name: tuple(float(v) for v in values[name]) for name in ("weights", "lowest")}
        priors = {str(name): float(prior) for name, prior in values["priors"].items()}
        return cls(float(values["bias"]), priors=priors, photos=values["photos"], scenes=values["scenes"], **lists)

    def as_json(self) -> dict[str, Any]:
        """The decision as values of a relation file."""
        return {
            "features": list(FEATURES),
            "bias": self.bias,
            "weights": list(self.weights),
            "priors": dict(self.priors),
            "lowest": list(self.lowest),
            "photos": self.photos,
            "scenes": self.scenes,
        }

    def belongs(self, label: str, values: NDArray[np.float64]) -> float:
        """The probability that a thing belongs."""
        odds = self.bias + float(np.dot(self.weights, values)) + self.priors.get(token(label), 0.0)
        return float(1 / (1 + np.exp(-np.clip(odds, -60, 60))))

    def cut(self, max_touched: float) -> float:
        """The probability below which a thing goes, so that at most so many of 1,000 ordinary photos lose something."""
        allowed = int(max_touched / 1000 * self.photos)
        return self.lowest[min(allowed, len(self.lowest) - 1)]


def _log_odds(probability: float) -> float:
    p = min(max(probability, _CLOSEST), 1 - _CLOSEST)
    return float(np.log(p / (1 - p)))
