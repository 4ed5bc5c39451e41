"""From captions and label lists to a relation file, and its figures: vectors, head, calibration, cuts, export."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from occpipe.relations import EmbeddingScorer, load_relations
from occpipe.relations.benchmark import Case, LabelledImage, Npmi, Scores, figures, make_cases, read_labels, run
from occpipe.relations.vectors import FORMAT, ClassVectors
from occpipe.training.embeddings import (
    PAPER_RECIPE,
    EmbeddingConfig,
    class_tokens,
    read_captions,
    train_vectors,
)
from occpipe.training.relation_head import HeadConfig, train_head

Progress = Callable[[str], None]

FALSE_REMOVAL = 0.03
"""The share of own things that the recommended cut removes, over the contexts of `calibration_cases`."""


def train(
    captions: Sequence[Path],
    things: Path,
    stuff: Path,
    out: Path,
    *,
    seed: int = 1,
    embedding: EmbeddingConfig | None = None,
    paper: EmbeddingConfig = PAPER_RECIPE,
    head: HeadConfig | None = None,
    lists_in_vectors: bool = False,
    progress: Progress = print,
) -> EmbeddingScorer:
    """Train on the training part of the label lists, calibrate on the calibration part, write `out`.

    The vectors come from the captions; with `lists_in_vectors` from the label lists as well, which changed nothing for
    listed classes and cost classes that no list names 0.02 AUC. No image of the test part is trained on with its labels.
    The same inputs and seed give the same bytes on the same
    machine and library versions.
    """
    embedding = embedding or EmbeddingConfig(seed=seed)
    head = head or HeadConfig(seed=seed)
    images = read_labels(things, stuff)
    training = [i for i in images if i.part == "train"]
    progress(f"{len(images)} label lists, {len(training)} for training")

    def stream() -> Iterator[str]:
        for path in captions:
            yield from read_captions(path)

    sentences = label_sentences(training, seed) if lists_in_vectors else ()
    vectors = train_vectors(stream(), sentences, embedding, progress=progress)
    paper_vectors = train_vectors(stream(), (), paper, classes_only=True, progress=progress)
    listed = class_tokens()
    rounded = vectors.matrix.astype(np.float16)  # the head must see what is stored
    arrays: dict[str, NDArray[Any]] = dict(
        train_head(rounded[: len(listed)].astype(np.float32), listed, training, head, progress)
    )
    arrays |= {"vectors": rounded, "paper_vectors": paper_vectors.matrix.astype(np.float16)}
    description: dict[str, Any] = {
        "format": FORMAT,
        "tokens": vectors.tokens,
        "paper_tokens": paper_vectors.tokens,
        "listed": listed,
        "calibration": {"scale": 1.0, "shift": 0.0},
        "default_cut": 0.5,
        "cuts": {},
        "recipe": {
            "lists_in_vectors": lists_in_vectors,
            "embedding": asdict(embedding),
            "paper": asdict(paper),
            "head": asdict(head),
        },
    }
    scorer = EmbeddingScorer(ClassVectors(vectors.tokens, rounded), arrays, description)
    description |= calibrate(scorer, [i for i in images if i.part == "calibration"])
    progress(f"calibration {description['calibration']}, cuts {description['cuts']}")
    out.parent.mkdir(parents=True, exist_ok=True)
    # a single metadata entry: safetensors writes several in an order that changes from run to run
    save_file(arrays, str(out), {"description": json.dumps(description)})
    return EmbeddingScorer(ClassVectors(vectors.tokens, rounded), arrays, description)


def label_sentences(images: Sequence[LabelledImage], seed: int) -> Iterator[list[str]]:
    """The classes of each image in random order, so that a window of the skip-gram sees any of them together."""
    rng = random.Random(seed)
    for image in images:
        tokens = sorted({*image.things, *image.stuff})
        rng.shuffle(tokens)
        yield tokens


def calibration_cases(images: Sequence[LabelledImage], seed: int = 0) -> list[Case]:
    """Contexts as they come in practice: complete, with 30% of the stuff missed, and of at most five and two classes."""
    return [
        *make_cases(images, seed, 2),
        *make_cases(images, seed + 1, 2, drop_stuff=0.3),
        *make_cases(images, seed + 2, 2, at_most=5),
        *make_cases(images, seed + 3, 1, at_most=2),
    ]


def score_cases(scorer: EmbeddingScorer, cases: Sequence[Case]) -> tuple[Scores, Scores]:
    """Own and intruder log-odds of all cases, in blocks."""
    tokens = scorer.vectors.tokens
    own, intruder = [], []
    for start in range(0, len(cases), 2048):
        block = cases[start : start + 2048]
        context = np.zeros((len(block), len(tokens)), np.float32)
        for row, case in enumerate(block):
            context[row, [scorer.vectors.row(c) for c in case.context]] = 1
        own.append(scorer.logits(np.array([scorer.vectors.row(c.own) for c in block]), context))
        intruder.append(scorer.logits(np.array([scorer.vectors.row(c.intruder) for c in block]), context))
    return np.concatenate(own).astype(np.float64), np.concatenate(intruder).astype(np.float64)


def calibrate(scorer: EmbeddingScorer, images: Sequence[LabelledImage]) -> dict[str, Any]:
    """Scale and shift of the log-odds (Platt, 1999) and the cuts for wanted shares of false removal."""
    neutral: dict[str, Any] = {"calibration": {"scale": 1.0, "shift": 0.0}, "default_cut": 0.1, "cuts": {}}
    cases = calibration_cases(images)
    if len(cases) < 100:
        return neutral  # a cut from a handful of images would be chance
    own, intruder = score_cases(scorer, cases)
    x = np.concatenate([own, intruder])
    y = np.concatenate([np.ones(len(own)), np.zeros(len(intruder))])
    design = np.stack([x, np.ones(len(x))], 1)
    theta = np.array([1.0, 0.0])
    for _ in range(25):  # Newton's steps of a logistic regression with two parameters
        p = 1 / (1 + np.exp(-design @ theta))
        theta += np.linalg.solve(design.T @ (design * (p * (1 - p))[:, None]), design.T @ (y - p))
    scale, shift = (round(float(t), 6) for t in theta)
    probability = 1 / (1 + np.exp(-(own * scale + shift)))
    cuts = {f"{share}": round(float(np.quantile(probability, share)), 4) for share in (0.02, 0.03, 0.05, 0.1)}
    return {"calibration": {"scale": scale, "shift": shift}, "default_cut": cuts[f"{FALSE_REMOVAL}"], "cuts": cuts}


def evaluate(things: Path, stuff: Path, relations: Path | None, *, rounds: int = 3, progress: Progress = print) -> None:
    """Print the intruder benchmark on the test part, beside the paper's formula and NPMI on the same cases."""
    images = read_labels(things, stuff)
    test = [i for i in images if i.part == "test"]
    scorer = load_relations("default", relations)
    paper = load_relations("paper2019", relations)
    if not isinstance(scorer, EmbeddingScorer):
        raise TypeError("the default scorer of a relation file is an EmbeddingScorer")
    npmi = Npmi([i for i in images if i.part == "train" and i.things and i.stuff])
    settings: dict[str, dict[str, Any]] = {
        "complete": {},
        "30% of stuff missed": {"drop_stuff": 0.3},
        "30% missed, one wrong": {"drop_stuff": 0.3, "add_stuff": 1},
        **{f"at most {k}": {"at_most": k} for k in (5, 3, 2, 1)},
    }
    for name, setting in settings.items():
        cases = make_cases(test, 7, rounds, **setting)
        own, intruder = score_cases(scorer, cases)
        progress(f"{name:22} default    {figures(own, intruder)}")
        if name == "complete":
            progress(f"{name:22} paper2019  {figures(*run(paper.relation, cases))}")
            progress(f"{name:22} NPMI       {figures(*run(npmi, cases))}")
        removed, found = (float((1 / (1 + np.exp(-s)) < scorer.default_cut).mean()) for s in (own, intruder))
        progress(f"{'':22} at the default cut {scorer.default_cut}: {removed:.1%} own removed, {found:.1%} found")
