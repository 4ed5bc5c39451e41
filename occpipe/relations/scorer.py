"""How far a thing belongs to the other things and stuff of its photo, as a number in [0, 1].

`EmbeddingScorer` (the default) turns class vectors into the log-odds that a thing belongs, learned from label lists;
`PaperScorer` is the mean rescaled cosine of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from occpipe.relations.vectors import ClassVectors
from occpipe.types import Evidence, Relation

PAPER_COS_MIN = -0.357849798828
"""Smallest cosine between two classes of the paper's vectors (its public code, see DESIGN.md)."""

PAPER_COS_MAX = 0.81298648546
"""Largest cosine between two different classes of the paper's vectors (its public code)."""

PAPER_CUT = 0.4
"""A thing below this relation is an occlusion (the paper, section 3)."""

DOUBT = 0.5
"""How much of the evidence stays unheard per context class: of one class half counts, of two 3/4, of five 97%.

Label lists are right; a segmenter that sees one or two classes has often misread the scene. Chosen so that one class
alone condemns few things (see the model card), at no cost for contexts of five classes or more.
"""

Floats = NDArray[np.float32]


class RelationScorer(Protocol):
    """What a pipeline asks of a relation predictor."""

    @property
    def default_cut(self) -> float:
        """The relation below which a thing does not belong."""

    def relation(self, thing: str, context: Sequence[str]) -> float:
        """The relation of a thing to its context, higher = belongs.

        Raises ValueError, naming the class, where the thing is unknown or no context class is known.
        """

    def score(self, thing: str, context: Sequence[str]) -> Relation:
        """The relation with its evidence, nearest context class first; the score is None where nothing can be scored."""


class PaperScorer:
    """The formula of the 2019 paper: the mean over the context of (cos - cos_min) / (cos_max - cos_min), in float64.

    It lies in [0, 1] for the paper's own vectors; others can leave that range, and nothing is clamped, so that the
    result stays what the formula gives. The evidence is the term of each class, limited to [0, 1]. With
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

    def _terms(self, thing: str, context: Sequence[str]) -> dict[str, tuple[float, int]]:
        """Per context class its term and how often it counts."""
        x = self.vectors[thing].astype(np.float64)
        terms: dict[str, tuple[float, int]] = {}
        seen: set[str] = set()
        for name in context:
            key = self.vectors.key(name)
            if key is None or (self.deduplicate_tokens and key in seen):
                continue
            seen.add(key)
            y = self.vectors[name].astype(np.float64)
            cos = np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))
            term = float((cos - self.cos_min) / (self.cos_max - self.cos_min))
            terms[name] = (term, terms.get(name, (term, 0))[1] + 1)
        return terms

    def relation(self, thing: str, context: Sequence[str]) -> float:
        """The mean term over the context; ValueError where the thing or every context class is unknown."""
        terms = self._terms(thing, context)
        if not terms:
            raise _no_context(thing, context)
        return _mean(terms)

    def score(self, thing: str, context: Sequence[str]) -> Relation:
        """The mean term with the term of each context class as evidence."""
        if thing not in self.vectors or not (terms := self._terms(thing, context)):
            return Relation(None)
        return Relation(_mean(terms), _ranked((name, term) for name, (term, _) in terms.items()))


class EmbeddingScorer:
    """The probability that a thing belongs, from class vectors and a small scoring head.

    The log-odds of a thing t in a context C of n different tokens are the mean, over a few nets, of

        logit(t | C) = b(t) + e(t) . (p + outer(gelu(inner(p))))
        p = (n + k)^g * sum over c in C of (v(c) + 3 / (n + 2) * u(c))

    and what C adds to logit(t | nothing) counts by 1 - DOUBT^n.

    e, v, u and b are linear maps of the class vectors, plus a learned offset for the classes of the training label
    lists; so any class with a vector can be scored. u lets a class weigh more where little else is known; an
    uninformative class has a short v and u. With few context classes the score stays near the prior of the thing. Own
    and intruding things are taken as equally likely a priori: 0.5 = cannot tell.

    The evidence of a context class is the relation of the thing to that class alone; `shares` says what each class
    changes in the score.
    """

    def __init__(
        self, vectors: ClassVectors, arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any]
    ) -> None:
        self.vectors = vectors
        self.default_cut: float = float(description["default_cut"])
        self.cuts: dict[str, float] = dict(description["cuts"])
        self._head = {n: a.astype(np.float32) for n, a in arrays.items() if "." in n or n in ("k", "g")}
        x = vectors.matrix / np.maximum(np.linalg.norm(vectors.matrix, axis=1, keepdims=True), 1e-9)
        self._e, self._v, self._u, self._b = (self._rows(x, part, len(description["listed"])) for part in "evub")
        self._scale = float(description["calibration"]["scale"])
        self._shift = float(description["calibration"]["shift"])
        nothing = np.zeros((len(self._v), 1, self._v.shape[2]), np.float32)
        self._prior = self._raw(np.arange(len(vectors)), nothing, nothing, np.zeros((1, 1), np.float32))
        self._alone: dict[tuple[str, str], float] = {}

    def _rows(self, x: Floats, part: str, listed: int) -> Floats:
        """A part for all tokens: members x tokens x width. The offsets belong to the listed tokens, the first rows."""
        head = self._head
        rows: Floats = x @ head[f"{part}.map"] + head[f"{part}.shift"][:, None]
        rows[:, :listed] += head[f"{part}.offset"]
        return rows

    def prior(self, thing: str) -> float:
        """The score of a thing with nothing around it, in [0, 1]; ValueError where it is unknown."""
        return _logistic(self._logits(self._row(thing), [[]])[0])

    def relation(self, thing: str, context: Sequence[str]) -> float:
        """The probability that the thing belongs; ValueError where the thing or every context class is unknown."""
        row = self._row(thing)
        names = self._names(thing, context)
        if not names:
            raise _no_context(thing, context)
        return _logistic(self._logits(row, [sorted(names)])[0])

    def score(self, thing: str, context: Sequence[str]) -> Relation:
        """The probability that the thing belongs; as evidence, the same from each context class alone."""
        if thing not in self.vectors or not (names := self._names(thing, context)):
            return Relation(None)
        row = self._row(thing)
        missing = [key for key in names if (thing, key) not in self._alone]
        for key, value in zip(missing, self._logits(row, [[key] for key in missing]), strict=True):
            self._alone[thing, key] = _logistic(value)
        evidence = _ranked((name, self._alone[thing, key]) for key, name in names.items())
        return Relation(_logistic(self._logits(row, [sorted(names)])[0]), evidence)

    def shares(self, thing: str, context: Sequence[str]) -> dict[str, float]:
        """What the log-odds would lose without each context class: positive where it speaks for the thing."""
        names = self._names(thing, context)
        keys = sorted(names)
        full, *without = self._logits(self._row(thing), [keys, *([k for k in keys if k != key] for key in keys)])
        return {names[key]: full - rest for key, rest in zip(keys, without, strict=True)}

    def logits(self, things: NDArray[np.int64], context: Floats) -> Floats:
        """Calibrated log-odds of many: rows of `vectors` (N) against contexts in {0, 1} (N x tokens) -> N."""
        n = context.sum(1, keepdims=True)
        return self._finish(things, context @ self._v, context @ self._u, n)

    def _logits(self, row: int, contexts: Sequence[Sequence[str]]) -> list[float]:
        """The same for one thing and a few contexts given by tokens, without a matrix over the whole vocabulary."""
        if not contexts:
            return []
        used = sorted({key for keys in contexts for key in keys})
        rows = [self.vectors.row(key) for key in used]
        context = np.array([[key in keys for key in used] for keys in contexts], np.float32).reshape(len(contexts), -1)
        v, u = context @ self._v[:, rows], context @ self._u[:, rows]
        things = np.full(len(contexts), row)
        return [float(x) for x in self._finish(things, v, u, context.sum(1, keepdims=True))]

    def _finish(self, things: NDArray[np.int64], v: Floats, u: Floats, n: Floats) -> Floats:
        """From pooled context vectors (members x N x width) and class counts (N x 1) to calibrated log-odds (N)."""
        prior = self._prior[things]
        heard = 1 - DOUBT ** n[:, 0]
        result: Floats = (prior + (self._raw(things, v, u, n) - prior) * heard) * self._scale + self._shift
        return result

    def _raw(self, things: NDArray[np.int64], v: Floats, u: Floats, n: Floats) -> Floats:
        """The log-odds of the formula, before doubt and calibration."""
        head = self._head
        p = (v + 3 / (n + 2) * u) * (n + head["k"][:, None, None]) ** head["g"][:, None, None]
        p = p + _gelu(p @ head["inner.weight"] + head["inner.bias"][:, None]) @ head["outer.weight"]
        p = p + head["outer.bias"][:, None]
        members = (p * self._e[:, things]).sum(2) + self._b[:, things, 0]
        result: Floats = members.mean(0)
        return result

    def _row(self, thing: str) -> int:
        return self.vectors.row(self.vectors.require(thing))

    def _names(self, thing: str, context: Sequence[str]) -> dict[str, str]:
        """The known tokens of a context, each once, with a name that led there; without the thing's own token."""
        own = self.vectors.key(thing)
        names: dict[str, str] = {}
        for name in context:
            key = self.vectors.key(name)
            if key is not None and key != own:
                names.setdefault(key, name)
        return names


def _gelu(x: Floats) -> Floats:
    """The Gaussian error linear unit by its tanh form (Hendrycks and Gimpel, 2016, arXiv:1606.08415)."""
    result: Floats = 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))
    return result


def _logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-np.float64(np.clip(x, -60, 60)))))


def _mean(terms: Mapping[str, tuple[float, int]]) -> float:
    return float(np.mean([term for term, count in terms.values() for _ in range(count)]))


def _ranked(pairs: Iterable[tuple[str, float]]) -> tuple[Evidence, ...]:
    """Evidence from nearest to farthest, ties by name so that the order never depends on the input's."""
    evidence = [Evidence(name, min(1.0, max(0.0, value))) for name, value in pairs]
    return tuple(sorted(evidence, key=lambda e: (-e.relation, e.context)))


def _no_context(thing: str, context: Sequence[str]) -> ValueError:
    return ValueError(f"no context class of {thing!r} is known to the vectors: {', '.join(context) or 'none given'}")
