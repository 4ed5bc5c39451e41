"""Statistics of the ratings of the review page: agreement of raters, grades, and agreement with occpipe.

Each rater judges only some things. So agreement is Krippendorff's alpha, which holds for any number of raters and for
missing values: 1 is full agreement, 0 is chance (Hayes and Krippendorff, "Answering the call for a standard reliability
measure for coding data", 2007). Intervals are percentiles of a bootstrap over images, because verdicts on one image are
not independent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from occpipe.core.tables import read_table
from occpipe.core.types import Verdict
from occpipe.dataset.reader import MANY_ROWS, Published
from occpipe.models.relations.observations import places_of

COLUMNS, OPTIONAL = ("image", "object", "verdict"), ("grade", "rater")
"""The columns of a verdicts file. On the review page's, a line with a grade has neither object nor verdict."""

DRAWS = 1000
"""Bootstrap samples."""

_MAX_COUNTS = 4_000_000  # in memory at a time, 64 MB
_MIN_IMAGES = 5  # with fewer, an interval has no meaning
_GRADES = 5
_VERDICTS = tuple(Verdict)
Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A statistic with the ends of its 95% interval; None where there are too few images for one."""

    value: float
    low: float | None = None
    high: float | None = None


class Line(NamedTuple):
    """A statistic with its name and kind of number; None where it cannot be computed."""

    what: str
    figure: Interval | None
    kind: Literal["count", "number", "share"]

    @property
    def texts(self) -> tuple[str, str, str]:
        """The line as text: name, statistic, interval."""
        if self.figure is None:
            return self.what, "-", ""
        form = {"count": ".0f", "number": ".2f", "share": ".0%"}[self.kind]
        value, low, high = self.figure
        return self.what, f"{value:{form}}", "" if low is None else f"{low:{form}} to {high:{form}}"


@dataclass(slots=True)
class Ratings:
    """Verdicts by image and object, and grades from 1 to 5 by image, each by rater; the last one of a rater counts."""

    verdicts: dict[str, dict[str, dict[str, str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    grades: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))


@dataclass(slots=True)
class _Matched:
    """The ratings of an output's rows by uri: per judged thing its verdict and those of the raters; grades.

    `unmatched` counts the objects and results in the files that are not in the output.
    """

    judged: dict[str, dict[int, tuple[str, dict[str, str]]]] = field(default_factory=lambda: defaultdict(dict))
    graded: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    unmatched: int = 0

    @property
    def raters(self) -> set[str]:
        """All raters of this output."""
        names = {name for things in self.judged.values() for _, votes in things.values() for name in votes}
        return names.union(*self.graded.values())


def read_ratings(paths: Iterable[Path]) -> Ratings:
    """The ratings of some files; the name of a file stands for a missing name of a rater. ValueError names the line."""
    ratings = Ratings()
    for path in paths:
        for number, (image, thing, verdict, grade, name) in read_table(path, COLUMNS, OPTIONAL):
            rater, where = name or path.name, f"{path}, line {number}"
            if not image or bool(thing) != bool(verdict) or not (verdict or grade):
                raise ValueError(f"{where}: needs image, and object with verdict, or a grade")
            if verdict:
                if verdict.lower() not in _VERDICTS:
                    raise ValueError(f"{where}: a verdict is keep or remove")
                ratings.verdicts[image][thing][rater] = verdict.lower()
            if grade:
                if grade not in ("1", "2", "3", "4", "5"):
                    raise ValueError(f"{where}: a grade is 1 to 5")
                ratings.grades[image][rater] = int(grade)
    return ratings


def rating_statistics(published: Published, paths: Iterable[Path]) -> list[Line]:
    """The statistics of verdicts files for a published output; ratings of other outputs do not count.

    Raises ValueError for a wrong file.
    """
    matches = _match(published, read_ratings(paths))
    units = [[_numbers(votes) for _, votes in things.values()] for things in matches.judged.values()]
    lines = [
        Line("raters", Interval(len(matches.raters)), "count"),
        Line("things judged", Interval(sum(map(len, units))), "count"),
        *([Line("matched nothing", Interval(matches.unmatched), "count")] if matches.unmatched else []),
        Line("agreement on keep or remove (alpha)", alpha_of(units, len(_VERDICTS)), "number"),
    ]
    for verdict, what in (
        (Verdict.REMOVE, "of what was removed, people remove"),
        (Verdict.KEEP, "of what stayed, people keep"),
    ):
        votes = [
            [float(vote == verdict) for ours, votes in things.values() if ours == verdict for vote in votes.values()]
            for things in matches.judged.values()
        ]
        lines.append(Line(what, mean_of(votes), "share"))
    grades = [list(by_rater.values()) for by_rater in matches.graded.values()]
    agreement = alpha_of([[[grade - 1 for grade in group]] for group in grades], _GRADES, ordinal=True)
    return [
        *lines,
        Line("results graded", Interval(len(grades)), "count"),
        Line("mean grade, 1 to 5", mean_of(grades), "number"),
        Line("agreement on grades (alpha, ordinal)", agreement, "number"),
    ]


def alpha_of(groups: Sequence[Sequence[Sequence[int]]], values: int, *, ordinal: bool = False) -> Interval | None:
    """Krippendorff's alpha of units in groups (images); a unit is the list of its values 0, 1, ..., one a rater.

    Values are nominal, or `ordinal`: then two of them differ by how many values lie between. None where all values are
    equal, or no unit has two.
    """
    matrices = np.zeros((len(groups), values, values))
    for matrix, units in zip(matrices, groups, strict=True):
        for unit in units:
            for a, b in permutations(unit, 2):
                matrix[a, b] += 1 / (len(unit) - 1)
    matrices = matrices[matrices.any((1, 2))]
    value = float(_alpha(matrices.sum(0), ordinal=ordinal))
    if np.isnan(value):
        return None
    samples = _alpha(_resampled(matrices), ordinal=ordinal)
    return _interval(value, samples, len(matrices))


def mean_of(groups: Sequence[Sequence[float]]) -> Interval | None:
    """The mean of all values; the bootstrap draws whole groups (images). None where there are no values."""
    sums = np.array([(sum(group), len(group)) for group in groups if group], float)
    if not len(sums):
        return None
    samples = _resampled(sums)
    return _interval(float(sums[:, 0].sum() / sums[:, 1].sum()), samples[:, 0] / samples[:, 1], len(sums))


def _alpha(coincidences: Floats, *, ordinal: bool) -> Floats:
    """Alpha of coincidence matrices, ... x V x V; NaN where nothing can differ."""
    totals = coincidences.sum(-1)
    between = totals.cumsum(-1) - totals / 2 if ordinal else np.arange(totals.shape[-1], dtype=float)
    distance = (between[..., :, None] - between[..., None, :]) ** 2
    if not ordinal:
        distance = np.minimum(distance, 1)
    expected = (totals[..., :, None] * totals[..., None, :] * distance).sum((-2, -1))
    observed = (totals.sum(-1) - 1) * (coincidences * distance).sum((-2, -1))
    result: Floats = 1 - np.divide(observed, expected, out=np.full_like(observed, np.nan), where=expected > 0)
    return result


def _resampled(groups: Floats) -> Floats:
    """Sums over groups drawn with replacement, as many as there are: N x ... -> DRAWS x ..."""
    rng, shares = np.random.default_rng(0), np.full(len(groups), 1 / len(groups))
    at_once = max(1, _MAX_COUNTS // len(groups))
    blocks = [
        np.tensordot(rng.multinomial(len(groups), shares, size=min(at_once, DRAWS - start)).astype(float), groups, 1)
        for start in range(0, DRAWS, at_once)
    ]
    result: Floats = np.concatenate(blocks)
    return result


def _interval(value: float, samples: Floats, groups: int) -> Interval:
    if groups < _MIN_IMAGES:
        return Interval(value)
    low, high = np.nanquantile(samples, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def _match(published: Published, ratings: Ratings) -> _Matched:
    """The ratings of rows of the output; a file names an image by uri or id, and a thing by its place or class."""
    matches, hits = _Matched(), set[tuple[str, str]]()
    rated = {*ratings.verdicts, *ratings.grades}
    rated_names = pa.array(sorted(rated), pa.string())
    columns = ["image_id", "uri", *(f"objects.list.element.{name}" for name in ("label", "verdict"))]
    for table in published.batches(columns, MANY_ROWS):
        names = pc.is_in(table.column("uri"), rated_names)
        numbers = pc.is_in(table.column("image_id").cast(pa.string()), rated_names)
        for row in table.filter(pc.or_(names, numbers)).to_pylist():
            things, image = row["objects"] or [], row["uri"]
            labels = [item["label"] for item in things]
            for name in sorted({image, str(row["image_id"])} & rated):
                for thing, votes in ratings.verdicts.get(name, {}).items():
                    for place in places_of(thing, labels):
                        matches.judged[image].setdefault(place, (things[place]["verdict"], {}))[1].update(votes)
                        hits.add((name, thing))
                if name in ratings.grades:
                    matches.graded[image] |= ratings.grades[name]
                    hits.add((name, ""))
    matches.unmatched = sum(map(len, ratings.verdicts.values())) + len(ratings.grades) - len(hits)
    return matches


def _numbers(votes: Mapping[str, str]) -> list[int]:
    return [_VERDICTS.index(Verdict(verdict)) for verdict in votes.values()]
