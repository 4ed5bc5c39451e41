"""The relation of a thing to the other things and stuff of its photo, as a number in [0, 1].

`EmbeddingScorer` computes the log-odds that a thing belongs from class vectors, with a head learned from label lists. The
formula of the paper is in `paper`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from occpipe.core.types import Evidence, Relation
from occpipe.models.relations.decision import Decision
from occpipe.models.relations.shapley import shapley
from occpipe.models.relations.vectors import ClassVectors

DOUBT = 0.5
"""The share of the evidence that each context class leaves out: one class counts half, two 3/4, five 97%.

Label lists are correct, but a segmenter that detects only one or two classes has often misread the scene. With this value
one class alone removes few things (see the model card), and contexts of five classes or more lose nothing.
"""

BLOCK = 4096
"""Things that `log_odds` scores at once: about 20 MB."""

Floats = NDArray[np.float64]
"""In float32 the order of sums, which BLAS chooses by memory address, changed the last bit of rows."""

Context: TypeAlias = Sequence[str] | Mapping[str, float]
"""The other classes of a photo: names, or names with their confidences in [0, 1]."""


class RelationScorer(Protocol):
    """The interface of a relation predictor."""

    @property
    def default_cut(self) -> float:
        """The relation below which a thing does not belong."""

    def relation(self, thing: str, context: Context) -> float:
        """The relation of a thing to its context, higher = belongs.

        Raises ValueError with the name of the class if the thing or every context class is unknown.
        """

    def score(self, thing: str, context: Context) -> Relation:
        """The relation with its evidence, nearest context class first; the score is None if nothing can be scored."""


class EmbeddingScorer:
    """The probability that a thing belongs, from class vectors and a small scoring head.

    The log-odds of a thing t in a context C, in which class c has the confidence w(c) (1 by default) and n = sum
    of w(c), are the mean over a few nets of

        logit(t | C) = b(t) + e(t) . (p + outer(gelu(inner(p))))
        p = (n + k)^g * sum over c in C of w(c) * (v(c) + 3 / (n + 2) * u(c))

    and the difference to logit(t | nothing) is multiplied by 1 - DOUBT^n. Calibration scales and shifts the log-odds, and
    adds the prior of the class, if there is one.

    e, v, u and b are linear maps of the class vectors, plus a learned offset for the classes of the training label
    lists; so any class with a vector can be scored. u lets a class weigh more where little else is known; an
    uninformative class has a short v and u. With few context classes the score stays near the prior of the thing. Own
    and intruding things are taken as equally likely a priori: 0.5 = cannot tell.

    The evidence of a context class is the relation of the thing to that class alone; `shares` has the contribution of
    each class to the score.
    """

    def __init__(
        self, vectors: ClassVectors, arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any]
    ) -> None:
        self.vectors = vectors
        self.default_cut: float = float(description["default_cut"])
        self.cuts: dict[str, float] = dict(description["cuts"])
        self.decisions = {n: Decision.from_json(d) for n, d in description.get("decisions", {}).items()}
        self._head = {n: a.astype(np.float64) for n, a in arrays.items() if "." in n or n in ("k", "g")}
        matrix = vectors.matrix.astype(np.float64)
        x = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
        self._e, self._v, self._u, self._b = (self._rows(x, part, len(description["listed"])) for part in "evub")
        self._scale = float(description["calibration"]["scale"])
        shift = float(description["calibration"]["shift"])
        self._shift = np.full(len(vectors), shift, np.float64)
        for name, prior in description.get("priors", {}).items():
            self._shift[vectors.row(name)] += prior
        nothing = np.zeros((len(self._v), 1, self._v.shape[2]), np.float64)
        self._prior = self._raw(np.arange(len(vectors)), nothing, nothing, np.zeros((1, 1), np.float64))
        self._alone: dict[tuple[str, str], float] = {}
        self._rows_of = _RowsOf(vectors)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any]) -> EmbeddingScorer:
        """The scorer of a relation file, see `read_asset`."""
        vectors = ClassVectors(description["tokens"], arrays["vectors"], description.get("aliases"))
        return cls(vectors, arrays, description)

    def _rows(self, x: Floats, part: str, listed: int) -> Floats:
        """A part for all tokens: members x tokens x width. The offsets belong to the listed tokens, the first rows."""
        head = self._head
        rows: Floats = x @ head[f"{part}.map"] + head[f"{part}.shift"][:, None]
        rows[:, :listed] += head[f"{part}.offset"]
        return rows

    def prior(self, thing: str) -> float:
        """The score of a thing with nothing around it, in [0, 1]; ValueError if it is unknown."""
        return _logistic(self._logits(self._row(thing), [{}])[0])

    def relation(self, thing: str, context: Context) -> float:
        """The probability that the thing belongs; ValueError if the thing or every context class is unknown."""
        row = self._row(thing)
        tokens = self._tokens(thing, context)
        if not tokens:
            raise no_context(thing, context)
        return _logistic(self._logits(row, [_weights(tokens)])[0])

    def score(self, thing: str, context: Context) -> Relation:
        """The probability that the thing belongs; as evidence, the same from each context class alone."""
        if thing not in self.vectors or not (tokens := self._tokens(thing, context)):
            return Relation(None)
        row = self._row(thing)
        missing = [key for key in tokens if (thing, key) not in self._alone]
        for key, value in zip(missing, self._logits(row, [{key: 1.0} for key in missing]), strict=True):
            self._alone[thing, key] = _logistic(value)
        evidence = ranked((name, self._alone[thing, key]) for key, (name, _) in tokens.items())
        return Relation(_logistic(self._logits(row, [_weights(tokens)])[0]), evidence)

    def shares(self, thing: str, context: Context) -> dict[str, float]:
        """The contribution of each context class to the log-odds, positive if it supports the thing.

        Shapley values, whose sum is logit(relation) - logit(prior). Raises ValueError if the thing is unknown.
        """
        row, tokens = self._row(thing), self._tokens(thing, context)
        weights = _weights(tokens)

        def values(subsets: Sequence[frozenset[str]]) -> list[float]:
            return self._logits(row, [{key: weights[key] for key in sorted(subset)} for subset in subsets])

        return {tokens[key][0]: share for key, share in shapley(list(weights), values).items()}

    def log_odds(self, things: Sequence[str], contexts: Sequence[Context]) -> Floats:
        """Calibrated log-odds of many things, each in its own context; ValueError if a thing is unknown.

        Equal to `relation` except for rounding, vectorised. Unknown context classes and the thing's own class are ignored.
        A context without any known class gives the prior of the thing.
        """
        parts = [np.zeros(0, np.float64)]
        for start in range(0, len(things), BLOCK):
            block = slice(start, start + BLOCK)
            parts.append(self._block(things[block], contexts[block]))
        return np.concatenate(parts)

    def _block(self, things: Sequence[str], contexts: Sequence[Context]) -> Floats:
        rows = np.array([self._row(thing) for thing in things], np.int64)
        column = np.array([self._rows_of[name] for context in contexts for name in context], np.int64)
        place = np.repeat(np.arange(len(contexts)), [len(context) for context in contexts])
        confidence = np.ones(len(column), np.float64)
        if any(isinstance(context, Mapping) for context in contexts):
            pairs = (c.values() if isinstance(c, Mapping) else repeat(1.0, len(c)) for c in contexts)
            confidence = _checked(np.fromiter(chain.from_iterable(pairs), np.float64, len(column)))
        known = column >= 0
        columns, where = np.unique(column[known], return_inverse=True)
        weights = np.zeros((len(things), len(columns)), np.float64)
        np.maximum.at(weights, (place[known], where), confidence[known])
        weights[columns == rows[:, None]] = 0  # a class is no context for itself
        return self.logits(rows, weights, columns)

    def logits(self, things: NDArray[np.int64], context: Floats, columns: NDArray[np.int64] | None = None) -> Floats:
        """Calibrated log-odds of many: rows of `vectors` (N) against confidences in [0, 1] (N x C) -> N.

        `columns` (C) are the rows of `vectors` that the C columns stand for, by default all of them.
        """
        v, u = (self._v, self._u) if columns is None else (self._v[:, columns], self._u[:, columns])
        return self._finish(things, context @ v, context @ u, context.sum(1, keepdims=True))

    def _logits(self, row: int, contexts: Sequence[Mapping[str, float]]) -> list[float]:
        """The same for one thing and a few contexts (token to confidence), without a matrix over the vocabulary."""
        if not contexts:
            return []
        used = sorted({key for weights in contexts for key in weights})
        rows = [self.vectors.row(key) for key in used]
        context = np.array([[weights.get(key, 0.0) for key in used] for weights in contexts], np.float64)
        context = context.reshape(len(contexts), -1)
        v, u = context @ self._v[:, rows], context @ self._u[:, rows]
        things = np.full(len(contexts), row)
        return [float(x) for x in self._finish(things, v, u, context.sum(1, keepdims=True))]

    def _finish(self, things: NDArray[np.int64], v: Floats, u: Floats, n: Floats) -> Floats:
        """From pooled context vectors (members x N x width) and class counts (N x 1) to calibrated log-odds (N)."""
        prior = self._prior[things]
        trust = 1 - DOUBT ** n[:, 0]
        raw = prior + (self._raw(things, v, u, n) - prior) * trust
        result: Floats = raw * self._scale + self._shift[things]
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
        row = self._rows_of[thing]
        return row if row >= 0 else self.vectors.row(self.vectors.require(thing))  # the latter raises

    def _tokens(self, thing: str, context: Context) -> dict[str, tuple[str, float]]:
        """The known tokens of a context, each once, with one of its names and its highest confidence.

        The thing's own token is left out, because instances of one class are no context for each other.
        """
        own = self.vectors.key(thing)
        tokens: dict[str, tuple[str, float]] = {}
        for name in context:
            key = self.vectors.key(name)
            if key is None or key == own:
                continue
            confidence = float(_checked(context[name])) if isinstance(context, Mapping) else 1.0
            if confidence > 0:
                first, highest = tokens.get(key, (name, 0.0))
                tokens[key] = (first, max(highest, confidence))
        return tokens


class _RowsOf(dict[str, int]):
    """Class name to row of the vectors, -1 if it is unknown; each name is looked up once."""

    def __init__(self, vectors: ClassVectors) -> None:
        super().__init__()
        self._vectors = vectors

    def __missing__(self, name: str) -> int:
        key = self._vectors.key(name)
        self[name] = -1 if key is None else self._vectors.row(key)
        return self[name]


def _checked(confidence: Any) -> Floats:
    """Confidences, one or many; ValueError if one is not in [0, 1]."""
    values = np.asarray(confidence, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"a confidence of {values.ravel()[np.argmax(~((values >= 0) & (values <= 1)))]} is not in [0, 1]"
        )
    return values


def _weights(tokens: Mapping[str, tuple[str, float]]) -> dict[str, float]:
    """Token to confidence, in alphabetical order, so that no sum depends on the order of the input."""
    return {key: tokens[key][1] for key in sorted(tokens)}


def _gelu(x: Floats) -> Floats:
    """The Gaussian error linear unit by its tanh form (Hendrycks and Gimpel, 2016, arXiv:1606.08415)."""
    inner = x * x  # in place from here on, and no power: five times as fast
    inner *= 0.044715 * 0.7978845608
    inner += 0.7978845608
    inner *= x
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= 0.5
    return inner


def _logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-np.float64(np.clip(x, -60, 60)))))


def ranked(pairs: Iterable[tuple[str, float]]) -> tuple[Evidence, ...]:
    """Evidence from nearest to farthest, ties by name so that the order never depends on the input's."""
    evidence = [Evidence(name, min(1.0, max(0.0, value))) for name, value in pairs]
    return tuple(sorted(evidence, key=lambda e: (-e.relation, e.context)))


def no_context(thing: str, context: Context) -> ValueError:
    """The error for a thing without any known context class."""
    return ValueError(f"no context class of {thing!r} is known to the vectors: {', '.join(context) or 'none given'}")
