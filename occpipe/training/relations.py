"""Training of a relation file from captions and label lists, and its evaluation on unseen classes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occpipe.core.classes import aliases, coco_stuff
from occpipe.models.relations.benchmark import Case, Figures, LabelledImage, figures, read_labels
from occpipe.models.relations.calibration import FALSE_REMOVAL, calibrate, observe_lists
from occpipe.models.relations.evaluation import score_cases
from occpipe.models.relations.scorer import EmbeddingScorer
from occpipe.models.relations.vectors import FORMAT, check_target, read_aliases, read_asset, write_asset
from occpipe.training.embeddings import (
    PAPER_RECIPE,
    EmbeddingConfig,
    class_tokens,
    read_captions,
    tokenise,
    train_vectors,
)
from occpipe.training.relation_head import HeadConfig, train_head

Progress = Callable[[str], None]

MAX_LISTS = 200_000
"""Captions that stand for label lists: the head takes 1.3 kB for each."""

NEUTRAL: Mapping[str, Any] = {
    "calibration": {"scale": 1.0, "shift": 0.0},
    "priors": {},
    "default_cut": 0.1,
    "cuts": {},
}
"""The calibration where there are too few label lists for one: a cut from a few images would be chance."""


def train(
    captions: Sequence[Path],
    things: Path | None,
    stuff: Path | None,
    out: Path,
    *,
    seed: int = 1,
    alias_file: Path | None = None,
    lists_in_vectors: bool = False,
    embedding: EmbeddingConfig | None = None,
    paper: EmbeddingConfig | None = None,
    head: HeadConfig | None = None,
    progress: Progress = print,
) -> EmbeddingScorer:
    """Train on the training part of the label lists, calibrate on the calibration part, write `out`.

    Without label lists the classes of one caption stand for the list of an image. The vectors come from the captions, and
    with `lists_in_vectors` from the lists as well. That changes nothing for listed classes and costs unlisted ones 0.02
    AUC. Labels of the test part are never used. The same inputs and seed give the same bytes on the same machine and
    library versions. Raises ValueError for unreadable or empty inputs, and for only one kind of list.
    """
    if (things is None) != (stuff is None):
        raise ValueError("label lists of things and of stuff go together: give both, or neither")
    check_target(out)
    embedding = embedding or EmbeddingConfig(seed=seed)
    paper = paper or replace(PAPER_RECIPE, seed=seed)
    head = head or HeadConfig(seed=seed)
    extra = {} if alias_file is None else read_aliases(alias_file)

    def stream() -> Iterator[str]:
        for path in captions:
            yield from read_captions(path)

    images = read_labels(things, stuff) if things and stuff else caption_lists(stream(), extra)
    training = [i for i in images if i.part == "train"]
    if not any(i.things and i.stuff for i in training):
        raise ValueError("nothing to train on: no image, or no caption, with both a thing and stuff")
    progress(f"{len(images)} label lists, {len(training)} for training")
    sentences = label_sentences(training, seed) if lists_in_vectors else ()
    vectors = train_vectors(stream(), sentences, embedding, extra=extra, progress=progress)
    paper_vectors = train_vectors(stream(), (), paper, classes_only=True, extra=extra, progress=progress)
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
        "aliases": extra,
        "listed": listed,
        **NEUTRAL,
        "recipe": {
            "lists": "labels" if things else "captions",
            "lists_in_vectors": lists_in_vectors,
            "embedding": asdict(embedding),
            "paper": asdict(paper),
            "head": asdict(head),
        },
    }
    scorer = EmbeddingScorer.from_arrays(arrays, description)
    observations = observe_lists([i for i in images if i.part == "calibration"], scorer)
    if sum(o.belongs is True for o in observations) * FALSE_REMOVAL >= 1:
        description = calibrate(scorer, observations).apply(description)
    progress(f"calibration {description['calibration']}, cuts {description['cuts']}")
    write_asset(arrays, description, out)
    return EmbeddingScorer.from_arrays(arrays, description)


def label_sentences(images: Sequence[LabelledImage], seed: int) -> Iterator[list[str]]:
    """The classes of each image in random order, so that a window of the skip-gram sees any of them together."""
    rng = random.Random(seed)
    for image in images:
        tokens = sorted({*image.things, *image.stuff})
        rng.shuffle(tokens)
        yield tokens


def caption_lists(captions: Iterable[str], extra: Mapping[str, str], count: int = MAX_LISTS) -> list[LabelledImage]:
    """The class tokens of each caption as the label list of an image; a caption with fewer than two gives none.

    Of more than `count` lists, a random sample of that size.
    """
    rng = random.Random(0)
    lists: list[LabelledImage] = []
    for number, one in enumerate(_caption_lists(captions, extra)):
        if number < count:
            lists.append(one)
        elif (place := rng.randrange(number + 1)) < count:
            lists[place] = one
    return lists


def _caption_lists(captions: Iterable[str], extra: Mapping[str, str]) -> Iterator[LabelledImage]:
    table = {**aliases(), **extra}
    things = {c.token for c in coco_stuff() if c.is_thing}
    classes = frozenset(class_tokens())
    for number, caption in enumerate(captions):
        tokens = sorted(classes.intersection(tokenise(caption, table)))
        if len(tokens) > 1:
            yield LabelledImage(
                f"caption {number}",
                tuple(t for t in tokens if t in things),
                tuple(t for t in tokens if t not in things),
            )


def choose_unseen(images: Sequence[LabelledImage], count: int, seed: int = 0) -> tuple[str, ...]:
    """A random sample of `count` thing classes, of those in at least 40 images."""
    counts: dict[str, int] = {}
    for image in images:
        for thing in image.things:
            counts[thing] = counts.get(thing, 0) + 1
    often = sorted(t for t, number in counts.items() if number >= 40)
    return tuple(sorted(random.Random(seed).sample(often, min(count, len(often)))))


def evaluate_unseen(
    things: Path,
    stuff: Path,
    relations: Path | None = None,
    *,
    count: int = 16,
    seed: int = 0,
    rounds: int = 8,
    head: HeadConfig | None = None,
    progress: Progress = print,
) -> tuple[tuple[str, ...], Figures, Figures]:
    """Evaluate classes that are in no label list: a new head is trained without `count` thing classes.

    Their vectors are those of the relation file, learned from captions. Returns the classes, the figures of own things
    among them against intruders among them, and against intruders of any class, on the test part.
    """
    images = read_labels(things, stuff)
    unseen = choose_unseen(images, count, seed)
    if len(unseen) < 2:
        raise ValueError("fewer than two thing classes are in 40 images or more: none can be left out")
    arrays, description = read_asset(relations)
    listed = description["listed"]
    training = [
        replace(
            i, things=tuple(t for t in i.things if t not in unseen), stuff=tuple(s for s in i.stuff if s not in unseen)
        )
        for i in images
        if i.part == "train"
    ]
    x = arrays["vectors"][: len(listed)].astype(np.float32)
    fitted = train_head(x, listed, training, head or HeadConfig(**description["recipe"]["head"]), progress)
    scorer = EmbeddingScorer.from_arrays(arrays | fitted, {**description, **NEUTRAL})
    test = [i for i in images if i.part == "test"]
    among, against_all = (
        figures(*score_cases(scorer, _unseen_cases(test, unseen, pool, rounds)))
        for pool in (unseen, {t for i in test for t in i.things})
    )
    return unseen, among, against_all


def _unseen_cases(
    images: Sequence[LabelledImage], unseen: Sequence[str], pool: Iterable[str], rounds: int
) -> list[Case]:
    """As `make_cases`, with own things of `unseen` only and intruders drawn from the things in `pool`."""
    rng = random.Random(0)
    allowed = set(pool)
    things = [t for i in images if len(i.stuff) >= 2 for t in i.things if t in allowed]
    kinds = frozenset(things)
    cases = []
    for image in (i for _ in range(rounds) for i in images):
        own = [t for t in image.things if t in unseen]
        if not own or len(image.stuff) < 2 or kinds.issubset(image.things):
            continue
        ours = intruder = rng.choice(own)
        while intruder in image.things:
            intruder = rng.choice(things)
        context = tuple(t for t in (*image.things, *image.stuff) if t not in (ours, intruder))
        cases.append(Case(ours, intruder, context))
    return cases
