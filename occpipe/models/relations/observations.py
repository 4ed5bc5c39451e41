"""Things of earlier runs for calibration: from published rows, with or without a table of human verdicts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from occpipe.core.config import Policy
from occpipe.core.tables import read_table
from occpipe.core.types import Reason
from occpipe.models.relations import RelationScorer, SceneContext
from occpipe.models.relations.calibration import Observation
from occpipe.models.relations.decide import context_of

ROWS = ("image_id", "uri", "objects", "stuff")
"""The columns of published rows that are read."""

MAX_THINGS = 200_000
"""Things of an earlier run, a uniform sample: about 200 MB; more would not change a calibration."""

Verdicts = dict[str, list[tuple[str, bool]]]


def observe_rows(
    rows: Iterable[Mapping[str, Any]], policy: Policy, scorer: RelationScorer, limit: int = MAX_THINGS
) -> list[Observation]:
    """The things of published rows that their relation decided, without human verdicts; a sample of at most `limit`.

    Things that policy, size or confidence decide are left out, because no cut changes them.
    """
    rng = random.Random(0)  # noqa: S311 - a sample, not a secret
    sample: list[Observation] = []
    for number, observation in enumerate(_decided(rows, policy, scorer)):
        if number < limit:
            sample.append(observation)
        elif (place := rng.randrange(number + 1)) < limit:
            sample[place] = observation
    return sample


def _decided(rows: Iterable[Mapping[str, Any]], policy: Policy, scorer: RelationScorer) -> Iterator[Observation]:
    for row in rows:
        decided = [o for o in row["objects"] or () if o["reason"] in (Reason.RELATED, Reason.UNRELATED)]
        if decided:
            context = _context(row, policy, scorer)
            for item in decided:
                yield Observation(item["label"], context.around(item["label"]), None)


def observe_verdicts(
    rows: Iterable[Mapping[str, Any]], policy: Policy, scorer: RelationScorer, verdicts: Verdicts
) -> tuple[list[Observation], list[str]]:
    """The judged things of published rows, and the verdicts (`image, object`) that match none; see `read_verdicts`.

    A thing with several verdicts counts once, by majority; with a tie it is left out.
    """
    judged: list[Observation] = []
    matched: set[tuple[str, str]] = set()
    for row in rows:
        labels = [item["label"] for item in row["objects"] or ()]
        verdict_of = judgements(row["uri"], row["image_id"], labels, verdicts, matched)
        if verdict_of:
            context = _context(row, policy, scorer)
        judged += [Observation(labels[n], context.around(labels[n]), belongs) for n, belongs in verdict_of.items()]
    return judged, unmatched(verdicts, matched)


def judgements(
    uri: str, image_id: int, labels: Sequence[str], verdicts: Verdicts, matched: set[tuple[str, str]] | None = None
) -> dict[int, bool]:
    """Which things of an image, by index in `labels`, belong (True) or not in human verdicts; see `read_verdicts`.

    The majority of the verdicts on a thing counts; with a tie it is not judged. The verdicts that match a thing are added
    to `matched`.
    """
    votes: dict[int, list[bool]] = {}
    for key in {str(uri), str(image_id)} & verdicts.keys():
        for target, belongs in verdicts[key]:
            for number in places_of(target, labels):
                votes.setdefault(number, []).append(belongs)
                if matched is not None:
                    matched.add((key, target))
    return {n: 2 * sum(v) > len(v) for n, v in sorted(votes.items()) if 2 * sum(v) != len(v)}


def places_of(target: str, labels: Sequence[str]) -> list[int]:
    """The indices of the things of a verdict: the thing with an index, or all things of a class."""
    return [number for number, label in enumerate(labels) if target.lower() in (str(number), label)]


def unmatched(verdicts: Verdicts, matched: set[tuple[str, str]]) -> list[str]:
    """The verdicts that match no thing, as `image, object`."""
    targets = dict.fromkeys((key, target) for key, entries in verdicts.items() for target, _ in entries)
    return [f"{key}, {target}" for key, target in targets if (key, target) not in matched]


def read_verdicts(path: Path) -> Verdicts:
    """Human verdicts by image, from CSV with the columns image, object, verdict.

    An image is a uri or an image_id of the Parquet. An object is its index in the row's `objects` (0 = first), or a class
    name for all things of that class. A verdict is keep or remove. A line with only a `grade` (1 to 5) is about the result
    of the image, and is skipped. Raises ValueError as `read_table`, and with the number of the line.
    """
    verdicts: Verdicts = {}
    for number, (image, thing, verdict, grade) in read_table(path, ("image", "object", "verdict"), ("grade",)):
        if grade not in ("", "1", "2", "3", "4", "5"):
            raise ValueError(f"{path}, line {number}: a grade is 1 to 5")
        if image and grade and not thing and not verdict:
            continue
        if not image or not thing or verdict.lower() not in ("keep", "remove"):
            raise ValueError(f"{path}, line {number}: needs image, object, and a verdict keep or remove")
        verdicts.setdefault(image, []).append((thing, verdict.lower() == "keep"))
    return verdicts


def _context(row: Mapping[str, Any], policy: Policy, scorer: RelationScorer) -> SceneContext:
    things = [(o["label"], o["score"]) for o in row["objects"]]
    stuff = {s["label"]: s["confidence"] for s in row["stuff"] or ()}
    return context_of(things, stuff, policy, scorer)
