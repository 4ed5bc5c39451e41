"""The relation of the 2019 paper: the mean rescaled cosine of a thing's vector with those of its context."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from occpipe.core.types import Relation
from occpipe.models.relations.scorer import Context, no_context, ranked
from occpipe.models.relations.vectors import ClassVectors

PAPER_COS_MIN = -0.357849798828
"""Smallest cosine between two classes of the paper's vectors (its public code, see DESIGN.md)."""

PAPER_COS_MAX = 0.81298648546
"""Largest cosine between two different classes of the paper's vectors (its public code)."""

PAPER_CUT = 0.4
"""A thing below this relation is an occlusion (the paper, section 3)."""


class PaperScorer:
    """The formula of the 2019 paper: the mean over the context of (cos - cos_min) / (cos_max - cos_min), in float64.

    It lies in [0, 1] for the paper's own vectors; others can leave that range, because the result of the formula is
    not clamped. The evidence is the term of each class, limited to [0, 1]. With
    `deduplicate_tokens` the seven kinds of wall count once; the paper counted them seven times.
    Source: Kahatapitiya, Tissera, Rodrigo, "Context-Aware Automatic Occlusion Removal", ICIP 2019, and its public code.
    """

    default_cut = PAPER_CUT

    def __init__(
        self,
        vectors: ClassVectors,
        cos_min: float = PAPER_COS_MIN,
        cos_max: float = PAPER_COS_MAX,
        deduplicate_tokens: bool = False,
    ) -> None:
        if not cos_min < cos_max:
            raise ValueError(f"cos_min {cos_min} must be below cos_max {cos_max}")
        self.vectors = vectors
        self.cos_min, self.cos_max = cos_min, cos_max
        self.deduplicate_tokens = deduplicate_tokens

    def _terms(self, thing: str, context: Context) -> dict[str, tuple[float, int]]:
        """For each context class its term and how often it counts."""
        x = self.vectors[thing].astype(np.float64)
        terms: dict[str, tuple[float, int]] = {}
        counted: set[str] = set()
        for name in context:
            key = self.vectors.key(name)
            if key is None or (self.deduplicate_tokens and key in counted):
                continue
            counted.add(key)
            y = self.vectors[name].astype(np.float64)
            cos = np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))
            term = float((cos - self.cos_min) / (self.cos_max - self.cos_min))
            terms[name] = (term, terms.get(name, (term, 0))[1] + 1)
        return terms

    def relation(self, thing: str, context: Context) -> float:
        """The mean term over the context; ValueError if the thing or every context class is unknown."""
        terms = self._terms(thing, context)
        if not terms:
            raise no_context(thing, context)
        return _mean(terms)

    def score(self, thing: str, context: Context) -> Relation:
        """The mean term with the term of each context class as evidence."""
        if thing not in self.vectors or not (terms := self._terms(thing, context)):
            return Relation(None)
        return Relation(_mean(terms), ranked((name, term) for name, (term, _) in terms.items()))


def _mean(terms: Mapping[str, tuple[float, int]]) -> float:
    return float(np.mean([term for term, count in terms.values() for _ in range(count)]))
