"""The intruder benchmark: telling a thing that is in a photo from one that was never there.

For each image with a thing and at least two different stuff tokens: one of its own things against a thing drawn from
the things of the other images (and not present in this one), both scored against the rest of the image. The figures are
the area under the ROC curve and the share of intruders found at a cut that removes 2, 5 or 10% of the own things.
"""

from __future__ import annotations

import csv
import gzip
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from occpipe.classes import coco_stuff, token
from occpipe.relations.scorer import Context

Scores = NDArray[np.float64]

TEST_PERCENT = 15
CALIBRATION_PERCENT = 10
SEEN_CONFIDENCE = 0.3


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
    """Images with label lists; the classes are 0-based indices into the 182, or names, separated by commas.

    Both files are TSV(.gz) with a header line and the columns image, classes. Images that stand in one file only have
    no classes of the other kind.
    """
    left, right = _read_lists(things), _read_lists(stuff)
    return [LabelledImage(image, left.get(image, ()), right.get(image, ())) for image in dict.fromkeys([*left, *right])]


def _read_lists(path: str | Path) -> dict[str, tuple[str, ...]]:
    path = Path(path)
    names = [c.token for c in coco_stuff()]
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
        rows = csv.reader(stream, delimiter="\t")
        next(rows, None)
        return {
            row[0]: tuple(sorted({names[int(c)] if c.strip().isdigit() else token(c) for c in row[1].split(",") if c}))
            for row in rows
            if len(row) > 1
        }


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

    `drop_stuff` leaves out that share of the stuff classes (one class of context always stays), `add_stuff` adds that
    many wrong ones (drawn from other images), `at_most` keeps that many context classes only: what segmenters get wrong.
    """
    rng = random.Random(seed)  # noqa: S311 - a benchmark, not a secret
    usable = [i for i in images if i.things and len(i.stuff) >= 2]
    things = [t for i in usable for t in i.things]
    stuff = [s for i in usable for s in i.stuff]
    cases = []
    for image in (i for _ in range(rounds) for i in usable):
        own = intruder = rng.choice(image.things)
        if set(things) <= set(image.things):
            continue
        while intruder in image.things:
            intruder = rng.choice(things)
        others = [t for t in image.things if t not in (own, intruder)]
        around = [s for s in image.stuff if s not in (own, intruder) and s not in others]
        kept = [s for s in around if not drop_stuff or rng.random() >= drop_stuff]
        while len(kept) < len(around) + add_stuff and add_stuff and len(set(kept) - set(around)) < add_stuff:
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
    """The cases as a calibrated segmenter sees them: classes missed, classes imagined, each with a confidence.

    Each class is seen with a confidence c from Beta(1.3, 1.3), or missed below 0.3, as by the policy's default; for each
    a wrong stuff class is imagined with a confidence drawn alike, and believed with probability (1 - c) / c. So what is
    seen with a confidence of c (at least 0.5) is there in a share c of the cases.
    """
    rng = np.random.default_rng(seed)
    stuff = [s for i in images for s in i.stuff]
    seen = []
    for case in cases:
        context: dict[str, float] = {}
        for name in case.context:
            true, wrong = rng.beta(1.3, 1.3, 2)
            context[name] = float(true)
            other = stuff[int(rng.integers(len(stuff)))]
            if rng.random() * wrong < 1 - wrong and other not in (case.own, case.intruder, *case.context):
                context[other] = float(wrong)
        context = {name: confidence for name, confidence in context.items() if confidence >= SEEN_CONFIDENCE}
        if context:
            seen.append(Case(case.own, case.intruder, context))
    return seen


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
    order, inverse, counts = np.unique(np.concatenate([own, intruder]), return_inverse=True, return_counts=True)
    del order
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n = len(own)
    auc = (ranks[:n].sum() - n * (n + 1) / 2) / (n * len(intruder))
    recall = [float((intruder < np.quantile(own, share)).mean()) for share in (0.02, 0.05, 0.1)]
    return Figures(float(auc), recall[0], recall[1], recall[2], n)


def run(score: Callable[[str, Context], float], cases: Sequence[Case]) -> tuple[Scores, Scores]:
    """Own and intruder scores of all cases."""
    own = np.array([score(c.own, c.context) for c in cases])
    intruder = np.array([score(c.intruder, c.context) for c in cases])
    return own, intruder


class Npmi:
    """The plain statistic to beat: the mean normalised pointwise mutual information of a thing with its context.

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
        """The mean over the context, in [-1, 1]."""
        return float(np.mean([self.table[self.rows[thing], self.rows[c]] for c in context]))
