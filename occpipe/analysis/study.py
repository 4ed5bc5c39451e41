"""What people say in a paired study: how natural the originals and the results of two runs look, with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from occpipe.analysis.agreement import Interval, Line, alpha_of, mean_of
from occpipe.core.tables import read_table

COLUMNS = ("image", "run", "natural", "missing", "rater")
RUNS = ("original", "first", "second")
_ANSWERS = {"yes": 1.0, "no": 0.0}

Answers = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By image, run and rater: 1 for yes, 0 for no."""


def read_answers(paths: Iterable[Path]) -> tuple[Answers, Answers]:
    """What some files of the study page say: natural or not, something missing or not. The last word of a rater counts.

    Raises ValueError, naming the line.
    """
    natural: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    missing: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for path in paths:
        for number, (image, run, *answers, rater) in read_table(path, COLUMNS):
            if run not in RUNS or any(answer not in ("", *_ANSWERS) for answer in answers):
                raise ValueError(f"{path}, line {number}: a run is {', '.join(RUNS)}, and an answer yes or no")
            for table, answer in zip((natural, missing), answers, strict=True):
                if answer:
                    table[image][run][rater or path.name] = _ANSWERS[answer]
    return natural, missing


def study_says(paths: Iterable[Path]) -> list[Line]:
    """The figures of a study, with 95% intervals by bootstrap over images. Raises ValueError for a wrong file."""
    natural, missing = read_answers(paths)
    raters = {rater for runs in natural.values() for said in runs.values() for rater in said}
    lines = [Line("raters", Interval(len(raters)), "count"), Line("images", Interval(len(natural)), "count")]
    for what, answers in (("looks natural", natural), ("something is missing", missing)):
        shares = {run: mean_of([list(runs[run].values()) for runs in answers.values()]) for run in RUNS}
        lines += [Line(f"{run}: {what}", share, "share") for run, share in shares.items()]
    for one, other in (("first", "second"), ("original", "first"), ("original", "second")):
        pairs = [_differences(runs[one], runs[other]) for runs in natural.values()]
        lines.append(Line(f"natural: {one} minus {other}", mean_of(pairs), "number"))
    units = [[[int(answer) for answer in said.values()] for said in runs.values()] for runs in natural.values()]
    lines.append(Line("agreement on natural (alpha)", alpha_of(units, 2), "number"))
    return lines


def _differences(one: Mapping[str, float], other: Mapping[str, float]) -> list[float]:
    """For each rater who judged both pictures: how much more natural the one is."""
    return [one[rater] - other[rater] for rater in one if rater in other]
