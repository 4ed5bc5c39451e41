"""What raters of the review page say together: agreement, grades, and how often they side with occpipe.

Raters judge different things, and not all of them, so agreement is Krippendorff's alpha, which holds for any number of
raters and for missing values (Hayes and Krippendorff, "Answering the call for a standard reliability measure for coding
data", 2007): 1 = they agree, 0 = as by chance. Intervals are percentiles of a bootstrap over images, since verdicts on one
image hang together.
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

_COUNTS = 4_000_000  # drawn at once, 64 MB
_FEWEST = 5  # images, below which an interval would say nothing
_GRADES = 5
_VERDICTS = tuple(Verdict)
Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A figure with the ends of its 95% interval; None where there are too few images for one."""

    value: float
    low: float | None = None
    high: float | None = None


class Line(NamedTuple):
    """A figure of what people say, None where it cannot be told, and what kind of number it is."""

    what: str
    figure: Interval | None
    kind: Literal["count", "number", "share"]

    @property
    def texts(self) -> tuple[str, str, str]:
        """The line as text: what, figure, interval."""
        if self.figure is None:
            return self.what, "-", ""
        form = {"count": ".0f", "number": ".2f", "share": ".0%"}[self.kind]
        value, low, high = self.figure
        return self.what, f"{value:{form}}", "" if low is None else f"{low:{form}} to {high:{form}}"


@dataclass(slots=True)
class Ratings:
    """Verdicts by image and object, and grades from 1 to 5 by image, each by rater; the last word of a rater counts."""

    verdicts: dict[str, dict[str, dict[str, str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    grades: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))


@dataclass(slots=True)
class _Matched:
    """The ratings of an output's rows by uri: of each judged thing what was decided and what raters say; grades.

    `missed` counts the objects and results in the files that are not in the output.
    """

    judged: dict[str, dict[int, tuple[str, dict[str, str]]]] = field(default_factory=lambda: defaultdict(dict))
    graded: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    missed: int = 0

    @property
    def raters(self) -> set[str]:
        """Who has said anything of this output."""
        names = {name for things in self.judged.values() for _, said in things.values() for name in said}
        return names.union(*self.graded.values())


def read_ratings(paths: Iterable[Path]) -> Ratings:
    """The ratings of some files. A rater without a name is called after the file. ValueError, naming the line."""
    found = Ratings()
    for path in paths:
        for number, (image, thing, verdict, grade, name) in read_table(path, COLUMNS, OPTIONAL):
            rater, where = name or path.name, f"{path}, line {number}"
            if not image or bool(thing) != bool(verdict) or not (verdict or grade):
                raise ValueError(f"{where}: needs image, and object with verdict, or a grade")
            if verdict:
                if verdict.lower() not in _VERDICTS:
                    raise ValueError(f"{where}: a verdict is keep or remove")
                found.verdicts[image][thing][rater] = verdict.lower()
            if grade:
                if grade not in ("1", "2", "3", "4", "5"):
                    raise ValueError(f"{where}: a grade is 1 to 5")
                found.grades[image][rater] = int(grade)
    return found


def people_say(published: Published, paths: Iterable[Path]) -> list[Line]:
    """What the raters of some verdicts files say of a published output, figure by figure; of other outputs nothing counts.

    Raises ValueError for a wrong file.
    """
    found = _match(published, read_ratings(paths))
    units = [[_numbers(said) for _, said in things.values()] for things in found.judged.values()]
    lines = [
        Line("raters", Interval(len(found.raters)), "count"),
        Line("things judged", Interval(sum(map(len, units))), "count"),
        *([Line("matched nothing", Interval(found.missed), "count")] if found.missed else []),
        Line("agreement on keep or remove (alpha)", alpha_of(units, len(_VERDICTS)), "number"),
    ]
    for verdict, what in (
        (Verdict.REMOVE, "of what was removed, people remove"),
        (Verdict.KEEP, "of what stayed, people keep"),
    ):
        votes = [
            [float(vote == verdict) for ours, said in things.values() if ours == verdict for vote in said.values()]
            for things in found.judged.values()
        ]
        lines.append(Line(what, mean_of(votes), "share"))
    grades = [list(said.values()) for said in found.graded.values()]
    agreed = alpha_of([[[grade - 1 for grade in said]] for said in grades], _GRADES, ordinal=True)
    return [
        *lines,
        Line("results graded", Interval(len(grades)), "count"),
        Line("mean grade, 1 to 5", mean_of(grades), "number"),
        Line("agreement on grades (alpha, ordinal)", agreed, "number"),
    ]


def alpha_of(groups: Sequence[Sequence[Sequence[int]]], values: int, *, ordinal: bool = False) -> Interval | None:
    """Krippendorff's alpha of units in groups (images), each unit the values 0, 1, ... that raters gave it.

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
    drawn = _alpha(_resampled(matrices), ordinal=ordinal)
    return _interval(value, drawn, len(matrices))


def mean_of(groups: Sequence[Sequence[float]]) -> Interval | None:
    """The mean of all values, in groups (images) of which each is drawn as a whole; None where there are no values."""
    sums = np.array([(sum(group), len(group)) for group in groups if group], float)
    if not len(sums):
        return None
    drawn = _resampled(sums)
    return _interval(float(sums[:, 0].sum() / sums[:, 1].sum()), drawn[:, 0] / drawn[:, 1], len(sums))


def _alpha(coincidences: Floats, *, ordinal: bool) -> Floats:
    """Alpha of coincidence matrices, ... x V x V; NaN where nothing can differ."""
    given = coincidences.sum(-1)
    between = given.cumsum(-1) - given / 2 if ordinal else np.arange(given.shape[-1], dtype=float)
    distance = (between[..., :, None] - between[..., None, :]) ** 2
    if not ordinal:
        distance = np.minimum(distance, 1)
    by_chance = (given[..., :, None] * given[..., None, :] * distance).sum((-2, -1))
    seen = (given.sum(-1) - 1) * (coincidences * distance).sum((-2, -1))
    result: Floats = 1 - np.divide(seen, by_chance, out=np.full_like(seen, np.nan), where=by_chance > 0)
    return result


def _resampled(groups: Floats) -> Floats:
    """Sums over groups drawn with replacement, as many as there are: N x ... -> DRAWS x ..."""
    rng, shares = np.random.default_rng(0), np.full(len(groups), 1 / len(groups))
    at_once = max(1, _COUNTS // len(groups))
    blocks = [
        np.tensordot(rng.multinomial(len(groups), shares, size=min(at_once, DRAWS - start)).astype(float), groups, 1)
        for start in range(0, DRAWS, at_once)
    ]
    result: Floats = np.concatenate(blocks)
    return result


def _interval(value: float, drawn: Floats, groups: int) -> Interval:
    if groups < _FEWEST:
        return Interval(value)
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def _match(published: Published, ratings: Ratings) -> _Matched:
    """The ratings of what is in the output; a thing may be named by uri and by id, by its place and by its class."""
    found, matched = _Matched(), set[tuple[str, str]]()
    rated = {*ratings.verdicts, *ratings.grades}
    wanted = pa.array(sorted(rated), pa.string())
    columns = ["image_id", "uri", *(f"objects.list.element.{name}" for name in ("label", "verdict"))]
    for table in published.batches(columns, MANY_ROWS):
        names = pc.is_in(table.column("uri"), wanted)
        numbers = pc.is_in(table.column("image_id").cast(pa.string()), wanted)
        for row in table.filter(pc.or_(names, numbers)).to_pylist():
            things, image = row["objects"] or [], row["uri"]
            labels = [item["label"] for item in things]
            for name in sorted({image, str(row["image_id"])} & rated):
                for thing, said in ratings.verdicts.get(name, {}).items():
                    for place in places_of(thing, labels):
                        found.judged[image].setdefault(place, (things[place]["verdict"], {}))[1].update(said)
                        matched.add((name, thing))
                if name in ratings.grades:
                    found.graded[image] |= ratings.grades[name]
                    matched.add((name, ""))
    found.missed = sum(map(len, ratings.verdicts.values())) + len(ratings.grades) - len(matched)
    return found


def _numbers(said: Mapping[str, str]) -> list[int]:
    return [_VERDICTS.index(Verdict(verdict)) for verdict in said.values()]
