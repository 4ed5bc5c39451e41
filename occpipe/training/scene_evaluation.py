"""What a config removes from composed scenes and from ordinary photos: the whole way from pixels to what is filled.

A thing is *outlined* where one segment covers 60% of it and has at most 2.5 times its area, *named* where such a segment
has its class, *judged* where such a segment is to be removed, and *removed* where what is filled around it does the same.
A removed thing of which less than 30% lies on the intruder is a wrong removal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pil

from occpipe.core.classes import token
from occpipe.core.config import Config, Segmenter
from occpipe.core.types import Image, Mask, Reason, SceneObject, Verdict
from occpipe.io.images import Limits, decode
from occpipe.models.loading import load_relations, load_segmenter
from occpipe.models.relations.decide import decide, removal_mask, rule_of
from occpipe.training.scenes import Scene

COVERED = 0.6
MAX_GROWTH = 2.5
ON_INTRUDER = 0.3
DECIDED = (Reason.UNRELATED, Reason.RELATED, Reason.LOW_CONFIDENCE)
BINS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
STEPS = ("outlined", "named", "judged", "removed")
SIZES = ((0.0, 0.05), (0.05, 0.08), (0.08, 1.0))
MAX_DRAWN = 64
_CELL = 240

Decided = tuple[tuple[SceneObject, ...], Mask | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far the intruder of a scene got, and the classes of what was wrongly removed beside it."""

    label: str
    area: float
    steps: frozenset[str]
    wrong: tuple[str, ...]
    belongs: tuple[tuple[float, bool], ...]
    """For each thing that its relation decided: that relation, and whether it belongs."""


class Judge:
    """A config at work on single images, without its inpainter."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.segmenter = load_segmenter(config)
        self.relations = load_relations(config.relations)
        self.rule = rule_of(config.policy, self.relations, config.segmenter.model)

    def __call__(self, image: Image) -> Decided:
        """The things of an image with their verdicts, and what would be filled, H x W; None for nothing."""
        (scene,) = self.segmenter([image])
        objects = decide(scene, self.relations, self.config.policy, self.rule)
        return objects, removal_mask(objects, self.config.policy, self.config.inpainter)


def read_folder(folder: Path) -> Iterator[tuple[str, Image]]:
    """The photos of a folder by name, in the order of their names, at the size that a segmenter sees at most."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ValueError(f"{folder} has no .jpg, .jpeg or .png")
    return ((path.name, decode(path.read_bytes(), Limits(), Segmenter().decode_side)) for path in files)


def measure(scene: Scene, decided: Decided) -> Outcome:
    """The outcome of a scene."""
    objects, filled = decided
    steps, wrong, belongs = set(), [], []
    for item in objects:
        mask = item.segment.mask
        removed = item.verdict is Verdict.REMOVE
        if fits(mask, scene.outline):
            steps.add("outlined")
            if token(item.label) == token(scene.label):
                steps.add("named")
            if removed:
                steps.add("judged")
        on_intruder = float(mask[scene.outline > 0].sum() / mask.sum())
        if removed and on_intruder < ON_INTRUDER:
            wrong.append(item.label)
        if item.relation is not None and item.reason in DECIDED:
            belongs.append((item.relation, on_intruder < ON_INTRUDER))
    if filled is not None and fits(_touching(filled, scene.outline), scene.outline):
        steps.add("removed")
    return Outcome(scene.label, scene.area, frozenset(steps), tuple(wrong), tuple(belongs))


def fits(mask: Mask, outline: Mask) -> bool:
    """Whether a mask stands for what has this outline, both H x W."""
    area = int(outline.sum())
    return int(mask[outline > 0].sum()) >= COVERED * area and int(mask.sum()) <= MAX_GROWTH * area


def _touching(filled: Mask, outline: Mask) -> Mask:
    """The parts of a mask that reach into an outline."""
    _, parts = cv2.connectedComponents(filled, connectivity=8)
    return np.isin(parts, np.setdiff1d(parts[outline > 0], [0])).astype(np.uint8)


def evaluate_scenes(
    judge: Callable[[Image], Decided],
    scenes: Sequence[Scene],
    ordinary: Iterable[tuple[str, Image]] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """All figures as plain values; see `lines`."""
    outcomes = []
    for number, scene in enumerate(scenes, 1):
        outcomes.append(measure(scene, judge(scene.image)))
        if number % 50 == 0:
            progress(f"{number} of {len(scenes)} scenes")
    untouched = {scene.name: scene.untouched for scene in scenes}
    wrong_hosts = {name: _removed(judge(image)) for name, image in untouched.items()}
    seen = {name: _removed(judge(image)) for name, image in ordinary}
    wrong = [label for outcome in outcomes for label in outcome.wrong]
    wrong_untouched = [label for labels in wrong_hosts.values() for label in labels]
    right = sum("removed" in outcome.steps for outcome in outcomes)
    all_removals = right + len(wrong) + len(wrong_untouched)
    precision = right / all_removals if all_removals else None
    recall = right / len(outcomes)
    return {
        "scenes": len(outcomes),
        "untouched": len(untouched),
        **{step: sum(step in o.steps for o in outcomes) / len(outcomes) for step in STEPS},
        "wrong_in_scenes": dict(Counter(wrong)),
        "wrong_in_untouched": dict(Counter(wrong_untouched)),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision else 0.0,
        "classes": {name: _shares([o for o in outcomes if o.label == name]) for name in sorted(_labels(outcomes))},
        "sizes": {
            f"{low:.0%} to {high:.0%}": _shares([o for o in outcomes if low <= o.area < high]) for low, high in SIZES
        },
        "reliability": list(_reliability([pair for outcome in outcomes for pair in outcome.belongs])),
        "ordinary": {
            "photos": len(seen),
            "changed": {name: labels for name, labels in seen.items() if labels},
        },
    }


def _reliability(pairs: Sequence[tuple[float, bool]]) -> Iterator[dict[str, Any]]:
    """By range of the relation: things, their mean relation, and the share that belongs."""
    for low, high in pairwise(BINS):
        inside = [pair for pair in pairs if low <= pair[0] < high or pair[0] == high == BINS[-1]]
        if inside:
            relation, belongs = np.mean(inside, axis=0).tolist()
            yield {"from": low, "to": high, "things": len(inside), "relation": relation, "belongs": belongs}


def _labels(outcomes: Sequence[Outcome]) -> set[str]:
    return {outcome.label for outcome in outcomes}


def _shares(outcomes: Sequence[Outcome]) -> dict[str, float]:
    count = max(1, len(outcomes))
    return {"scenes": len(outcomes)} | {step: sum(step in o.steps for o in outcomes) / count for step in STEPS}


def _removed(decided: Decided) -> list[str]:
    return [item.label for item in decided[0] if item.verdict is Verdict.REMOVE]


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The result of `evaluate_scenes` as tables."""
    yield f"{'':16} scenes " + " ".join(f"{step:>9}" for step in STEPS)
    for name, row in (*result["classes"].items(), *result["sizes"].items(), ("all", result)):
        yield f"{name:16} {row['scenes']:6} " + " ".join(f"{row[step]:9.3f}" for step in STEPS)
    for where in ("scenes", "untouched"):
        wrong = result[f"wrong_in_{where}"]
        named = ", ".join(f"{label} {count}" for label, count in sorted(wrong.items(), key=lambda item: -item[1]))
        yield f"wrong removals in {result[where]} {where}: {sum(wrong.values())}" + (f" ({named})" if named else "")
    precision = result["precision"]
    yield (
        f"precision {'-' if precision is None else f'{precision:.3f}'}, recall {result['recall']:.3f}, "
        f"F1 {result['f1']:.3f}"
    )
    yield f"{'relation':16} things      mean   belongs"
    for row in result["reliability"]:
        where = f"{row['from']:.2f} to {row['to']:.2f}"
        yield f"{where:16} {row['things']:6} {row['relation']:9.3f} {row['belongs']:9.3f}"
    ordinary = result["ordinary"]
    if ordinary["photos"]:
        changed = ordinary["changed"]
        yield f"ordinary photos: {len(changed)} of {ordinary['photos']} changed ({len(changed) / ordinary['photos']:.2%})"
        for name, labels in changed.items():
            yield f"  {name}: {', '.join(labels)}"


def sheet(pairs: Iterable[tuple[Image, Mask | None, Mask | None]], columns: int = 8) -> Pil.Image:
    """Small pictures of images with the outline of the intruder in green and what would be filled in red."""
    cells = []
    for image, outline, filled in pairs:
        drawn = image.copy()
        for mask, colour in ((filled, (255, 40, 40)), (outline, (40, 255, 40))):
            if mask is not None:
                rings, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                cv2.drawContours(drawn, rings, -1, colour, max(2, max(mask.shape) // 160))
        cell = Pil.fromarray(drawn)
        cell.thumbnail((_CELL, _CELL))
        cells.append(cell)
    rows = -(-len(cells) // columns)
    page = Pil.new("RGB", (columns * _CELL, max(1, rows) * _CELL), "white")
    for place, cell in enumerate(cells):
        page.paste(cell, (place % columns * _CELL, place // columns * _CELL))
    return page
