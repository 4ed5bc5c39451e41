"""The intruder benchmark: a thing of a photo against a thing that is not in it.

A case is made of each image with a thing and at least two different stuff tokens. It has one of the own things, and an
intruder: a thing of another image that is not in this one. Both are scored against the rest of the image. The metrics are
the area under the ROC curve, and the share of intruders below a cut that removes 2, 5 or 10% of the own things.
"""

from __future__ import annotations

import contextlib
import csv
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from occpipe.core.classes import coco_stuff, token
from occpipe.core.config import Policy
from occpipe.core.tables import open_text
from occpipe.models.relations.scorer import Context

Scores = NDArray[np.float64]

TEST_PERCENT = 15
CALIBRATION_PERCENT = 10


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """The tokens of the thing and stuff classes in an image, each once, in alphabetical order."""

    image: str
    things: tuple[str, ...]
    stuff: tuple[str, ...]

    @property
    def part(self) -> str:
        """`test` (15%), `calibration` (10%) or `train`, by a hash of the image's name: the same in every run."""
        bucket = zlib.crc32(self.image.encode()) % 100
        if bucket < TEST_PERCENT:
            return "test"
        return "calibration" if bucket < TEST_PERCENT + CALIBRATION_PERCENT else "train"


@dataclass(frozen=True, slots=True)
class Case:
    """An own thing and an intruder, both to be scored against the same context."""

    own: str
    intruder: str
    context: Context


def read_labels(things: str | Path, stuff: str | Path) -> list[LabelledImage]:
    """Images with label lists; the classes are 0-based indices of the 182, or names, separated by commas.

    Both files are TSV(.gz) with a header line and the columns image, classes. Images in only one of the files have no
    classes of the other kind.
    """
    left, right = _read_lists(things), _read_lists(stuff)
    return [LabelledImage(image, left.get(image, ()), right.get(image, ())) for image in dict.fromkeys([*left, *right])]


def _read_lists(path: str | Path) -> dict[str, tuple[str, ...]]:
    names = [c.token for c in coco_stuff()]

    def named(text: str, line: int) -> str:
        if not text.isdigit():
            return token(text)
        if int(text) >= len(names):
            raise ValueError(f"{path}, line {line}: class {text} is not one of the {len(names)} of COCO-Stuff, from 0")
        return names[int(text)]

    lists = {}
    with open_text(Path(path)) as stream:
        rows = csv.reader(stream, delimiter="\t")
        next(rows, None)
        for line, row in enumerate(rows, 2):
            if len(row) > 1:
                lists[row[0]] = tuple(sorted({named(c.strip(), line) for c in row[1].split(",") if c.strip()}))
    return lists


def make_cases(
    images: Sequence[LabelledImage],
    seed: int = 0,
    rounds: int = 1,
    *,
    drop_stuff: float = 0.0,
    add_stuff: int = 0,
    at_most: int | None = None,
) -> list[Case]:
    """The cases of the benchmark, `rounds` per image.

    These settings simulate errors of segmenters. `drop_stuff` leaves out that share of the stuff classes; one class of
    context always stays. `add_stuff` adds so many wrong ones from other images. `at_most` keeps so many context classes.
    """
    rng = random.Random(seed)  # noqa: S311 - a benchmark, not a secret
    usable = [i for i in images if i.things and len(i.stuff) >= 2]
    things = [t for i in usable for t in i.things]
    stuff = [s for i in usable for s in i.stuff]
    kinds, kinds_of_stuff = len(set(things)), frozenset(stuff)
    cases = []
    for image in (i for _ in range(rounds) for i in usable):
        own = intruder = rng.choice(image.things)
        if len(image.things) == kinds:  # no class is missing in this image
            continue
        while intruder in image.things:
            intruder = rng.choice(things)
        others = [t for t in image.things if t not in (own, intruder)]
        around = [s for s in image.stuff if s not in (own, intruder) and s not in others]
        kept = [s for s in around if not drop_stuff or rng.random() >= drop_stuff]
        absent = len(kinds_of_stuff.difference(image.stuff, (own, intruder)))
        while len(set(kept) - set(around)) < min(add_stuff, absent):
            wrong = rng.choice(stuff)
            if wrong not in image.stuff and wrong not in (own, intruder):
                kept.append(wrong)
        context = others + kept or around[:1]
        if at_most is not None:
            rng.shuffle(context)
            context = context[:at_most]
        if context:
            cases.append(Case(own, intruder, tuple(context)))
    return cases


def as_seen(cases: Sequence[Case], images: Sequence[LabelledImage], seed: int = 0) -> list[Case]:
    """The cases as detected by a calibrated segmenter: with missing classes, false classes, and confidences.

    Each class has a confidence c from Beta(1.3, 1.3), which is wide and has no peak at 1. For each class a false stuff
    class with a confidence from the same distribution is added with probability (1 - c) / c. So a class with a confidence
    c of at least 0.5 is correct in a share c of the cases. A class below the defaults of the policy is missing.
    """
    rng = np.random.default_rng(seed)
    policy = Policy()
    stuff = [s for i in images for s in i.stuff]
    kinds = {c.token for c in coco_stuff() if c.is_thing}
    detected = []
    for case in cases:
        context: dict[str, float] = {}
        for name in case.context:
            true, wrong = rng.beta(1.3, 1.3, 2)
            context[name] = float(true)
            other = stuff[int(rng.integers(len(stuff)))]
            if rng.random() * wrong < 1 - wrong and other not in (case.own, case.intruder, *case.context):
                context[other] = float(wrong)
        least = {name: policy.min_score if name in kinds else policy.min_stuff_confidence for name in context}
        context = {name: confidence for name, confidence in context.items() if confidence >= least[name]}
        if context:
            detected.append(Case(case.own, case.intruder, context))
    return detected


def split_context(context: Context) -> tuple[dict[str, float], dict[str, float]]:
    """The things and the stuff of a context of tokens, with their confidences (1 by default)."""
    kinds = {c.token for c in coco_stuff() if c.is_thing}
    weights = dict(context) if isinstance(context, Mapping) else dict.fromkeys(context, 1.0)
    things = {name: weight for name, weight in weights.items() if name in kinds}
    return things, {name: weight for name, weight in weights.items() if name not in kinds}


@dataclass(frozen=True, slots=True)
class Intrusion:
    """A scene with added things of another image: `own` belongs, `intruder` is one of the added things."""

    things: tuple[str, ...]
    stuff: tuple[str, ...]
    own: str
    intruder: str


def make_intrusions(
    images: Sequence[LabelledImage], seed: int = 0, rounds: int = 1, *, intruders: int = 1
) -> list[Intrusion]:
    """Scenes with `intruders` things of one other image among their own, `rounds` per image.

    Unlike in `make_cases`, the intruders are part of the context of the own thing and of each other.
    """
    rng = random.Random(seed)  # noqa: S311 - a benchmark, not a secret
    usable = [i for i in images if i.things and len(i.stuff) >= 2]
    scenes = []
    for image in (i for _ in range(rounds) for i in usable):
        own, other = rng.choice(image.things), rng.choice(usable)
        strange = [t for t in other.things if t not in image.things]
        if len(strange) >= intruders:
            added = rng.sample(strange, intruders)
            scenes.append(Intrusion((*image.things, *added), image.stuff, own, added[0]))
    return scenes


@dataclass(frozen=True, slots=True)
class Figures:
    """AUC and intruder recall at 2, 5 and 10% false removal, over `cases` pairs."""

    auc: float
    recall2: float
    recall5: float
    recall10: float
    cases: int

    def __str__(self) -> str:
        return (
            f"AUC {self.auc:.3f}  intruder recall {self.recall2:.3f} / {self.recall5:.3f} / {self.recall10:.3f} "
            f"at 2 / 5 / 10% false removal  ({self.cases} pairs)"
        )


def figures(own: Scores, intruder: Scores) -> Figures:
    """The figures of own scores against intruder scores; ties count half."""
    recall = [float((intruder < np.quantile(own, share)).mean()) for share in (0.02, 0.05, 0.1)]
    return Figures(area_under_curve(own, intruder), recall[0], recall[1], recall[2], len(own))


def area_under_curve(own: Scores, intruder: Scores) -> float:
    """The probability that an own thing scores above an intruder, by ranks (Mann and Whitney, 1947); ties count half."""
    _, inverse, counts = np.unique(np.concatenate([own, intruder]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n = len(own)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(intruder)))


def run(score: Callable[[str, Context], float], cases: Sequence[Case]) -> tuple[Scores, Scores]:
    """Own and intruder scores of the cases; a case for which the scorer raises ValueError is left out."""
    scores = []
    for case in cases:
        with contextlib.suppress(ValueError):
            scores.append((score(case.own, case.context), score(case.intruder, case.context)))
    own, intruder = np.array(scores, np.float64).reshape(-1, 2).T
    return own, intruder


class Npmi:
    """A simple baseline: the mean normalised pointwise mutual information of a thing with its context.

    Source: Bouma, "Normalized (pointwise) mutual information in collocation extraction", 2009.
    """

    def __init__(self, images: Sequence[LabelledImage]) -> None:
        self.rows = {t: i for i, t in enumerate(dict.fromkeys(c.token for c in coco_stuff()))}
        present = np.zeros((len(images), len(self.rows)))
        for row, image in enumerate(images):
            present[row, [self.rows[t] for t in (*image.things, *image.stuff) if t in self.rows]] = 1
        joint = (present.T @ present + 0.1) / (len(images) + 0.2)
        single = (present.sum(0) + 0.2) / (len(images) + 0.2)
        self.table = np.log(joint / np.outer(single, single)) / -np.log(np.minimum(joint, 1 - 1e-9))

    def __call__(self, thing: str, context: Context) -> float:
        """The mean over the context, in [-1, 1]; ValueError if the thing or every context class is unknown."""
        around = [self.rows[c] for c in context if c in self.rows]
        if thing not in self.rows or not around:
            raise ValueError(f"no statistics of {thing!r} and its context")
        return float(self.table[self.rows[thing], around].mean())
