"""Evaluates a relation file on label lists, with the paper's formula and NPMI as baselines in the same run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from occpipe.models.relations import load_relations
from occpipe.models.relations.benchmark import (
    Case,
    Figures,
    LabelledImage,
    Npmi,
    Scores,
    area_under_curve,
    as_seen,
    figures,
    make_cases,
    make_intrusions,
    read_labels,
    run,
)
from occpipe.models.relations.scene import SceneContext, scene_context
from occpipe.models.relations.scorer import EmbeddingScorer
from occpipe.models.relations.vectors import read_asset

SEED = 7
SEEN = "as a segmenter sees it"
SEEN_UNWEIGHTED = "the same, unweighted"
SETTINGS: dict[str, dict[str, Any]] = {
    "complete": {},
    "30% of stuff missed": {"drop_stuff": 0.3},
    "30% missed, one wrong": {"drop_stuff": 0.3, "add_stuff": 1},
    **{f"at most {k}": {"at_most": k} for k in (5, 3, 2, 1)},
}
"""Simulated errors of a segmenter, by name."""


class ClassRow(TypedDict):
    """A thing class: its cases as own thing and as intruder, and the shares of them below the cut."""

    thing: str
    own: int
    intruder: int
    auc: float | None
    own_removed: float | None
    found: float | None


class Evaluation(TypedDict):
    """The intruder benchmark as JSON values; `contexts` has the fields of `Figures` by setting and scorer."""

    part: str
    contexts: dict[str, dict[str, dict[str, Any]]]
    cut: float
    at_cut: dict[str, dict[str, float]]
    classes: list[ClassRow]
    unseen: NotRequired[dict[str, object]]


def evaluate(
    things: Path,
    stuff: Path,
    relations: Path | None = None,
    *,
    all_images: bool = False,
    rounds: int = 3,
) -> Evaluation:
    """Run the intruder benchmark.

    The images are those of the test part, on which the shipped file was not trained, or `all_images`. The NPMI statistics
    come from the training part. A baseline is measured on the pairs with known classes. Raises ValueError if a file cannot
    be read or there is nothing to score.
    """
    scorer = EmbeddingScorer.from_arrays(*read_asset(relations))
    paper = load_relations("paper2019", relations)
    images = read_labels(things, stuff)
    tested = [i for i in images if all_images or i.part == "test"]
    npmi = Npmi([i for i in images if i.part == "train" and i.things and i.stuff])
    contexts: dict[str, dict[str, Any]] = {}
    rates: dict[str, dict[str, float]] = {}
    classes: list[ClassRow] = []
    for name, cases in _settings(tested, rounds):
        if not cases:
            raise ValueError(f"{things}: no image with a thing, two kinds of stuff and a possible intruder")
        own, intruder = score_cases(scorer, cases)
        contexts[name] = {"default": asdict(figures(own, intruder))}
        cut = np.log(scorer.default_cut / (1 - scorer.default_cut))
        rates[name] = {"own_removed": float((own < cut).mean()), "found": float((intruder < cut).mean())}
        if name == "complete":
            for baseline, score in (("paper2019", paper.relation), ("NPMI", npmi)):
                scores = run(score, cases)
                if len(scores[0]):
                    contexts[name][baseline] = asdict(figures(*scores))
            classes = _classes(cases, own, intruder, float(cut))
    for name, (own, intruder) in _intrusions(scorer, tested, rounds):
        contexts[name] = {"default": asdict(figures(own, intruder))}
        rates[name] = {"own_removed": float((own < cut).mean()), "found": float((intruder < cut).mean())}
    return {
        "part": "all" if all_images else "test",
        "contexts": contexts,
        "cut": scorer.default_cut,
        "at_cut": rates,
        "classes": classes,
    }


def _settings(images: Sequence[LabelledImage], rounds: int) -> Iterator[tuple[str, list[Case]]]:
    for name, setting in SETTINGS.items():
        yield name, make_cases(images, SEED, rounds, **setting)
    detected = as_seen(make_cases(images, SEED, rounds), images, SEED)
    yield SEEN, detected
    yield SEEN_UNWEIGHTED, [Case(c.own, c.intruder, tuple(c.context)) for c in detected]


def score_cases(scorer: EmbeddingScorer, cases: Sequence[Case]) -> tuple[Scores, Scores]:
    """Own and intruder log-odds of all cases."""
    contexts = [c.context for c in cases]
    own = scorer.log_odds([c.own for c in cases], contexts)
    intruder = scorer.log_odds([c.intruder for c in cases], contexts)
    return own.astype(np.float64), intruder.astype(np.float64)


def _intrusions(
    scorer: EmbeddingScorer, images: Sequence[LabelledImage], rounds: int
) -> Iterator[tuple[str, tuple[Scores, Scores]]]:
    """Scenes with one and with two intruders; things are weighted by their relation, or count fully."""
    for count in (1, 2):
        scenes = make_intrusions(images, SEED, rounds, intruders=count)
        for weighted in (True, False) if scenes else ():
            contexts = []
            for scene in scenes:
                things, stuff = dict.fromkeys(scene.things, 1.0), dict.fromkeys(scene.stuff, 1.0)
                context = scene_context(scorer, things, stuff) if weighted else SceneContext(things, stuff)
                contexts.append((context.around(scene.own), context.around(scene.intruder)))
            own = scorer.log_odds([s.own for s in scenes], [c for c, _ in contexts])
            intruder = scorer.log_odds([s.intruder for s in scenes], [c for _, c in contexts])
            name = f"{count} intruder{'s' * (count > 1)} there" + ("" if weighted else ", trusted")
            yield name, (own.astype(np.float64), intruder.astype(np.float64))


def _classes(cases: Sequence[Case], own: Scores, intruder: Scores, cut: float) -> list[ClassRow]:
    """Per thing class: how often it is the own thing and the intruder, and what happens to it at the cut."""
    own_names, intruder_names = np.array([c.own for c in cases]), np.array([c.intruder for c in cases])
    rows: list[ClassRow] = []
    for thing in sorted({*own_names, *intruder_names}):
        native, strange = own[own_names == thing], intruder[intruder_names == thing]
        rows.append(
            {
                "thing": str(thing),
                "own": len(native),
                "intruder": len(strange),
                "auc": area_under_curve(native, strange) if len(native) and len(strange) else None,
                "own_removed": float((native < cut).mean()) if len(native) else None,
                "found": float((strange < cut).mean()) if len(strange) else None,
            }
        )
    return rows


def lines(result: Evaluation, *, per_class: bool = False) -> Iterator[str]:
    """The result of `evaluate` as a table."""
    for name, scorers in result["contexts"].items():
        for scorer, values in scorers.items():
            yield f"{name:27} {scorer:10} {Figures(**values)}"
        rates = result["at_cut"][name]
        yield (
            f"{'':27} at the cut of {result['cut']:.4f}: {rates['own_removed']:.1%} of the own things removed, "
            f"{rates['found']:.1%} of the intruders found"
        )
    if per_class:
        yield f"\n{'thing':16} {'own':>5} {'intruder':>8} {'AUC':>6} {'removed':>8} {'found':>6}   (at the cut)"
        for row in result["classes"]:
            auc, removed, found = (
                "-" if value is None else f"{value:.3f}" for value in (row["auc"], row["own_removed"], row["found"])
            )
            yield f"{row['thing']:16} {row['own']:5} {row['intruder']:8} {auc:>6} {removed:>8} {found:>6}"
