"""What earlier runs and people say of things: from published rows, and from a table of human verdicts."""

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

MOST = 200_000
"""Things of an earlier run that are looked at, drawn evenly: some 200 MB, and more would not change a calibration."""

Verdicts = dict[str, list[tuple[str, bool]]]


def observe_rows(
    rows: Iterable[Mapping[str, Any]], policy: Policy, scorer: RelationScorer, most: int = MOST
) -> list[Observation]:
    """The things of published rows that were decided by their relation; nobody has judged them.

    Things that policy, size or doubt decide are left out: no cut changes them. At most `most`, drawn evenly.
    """
    rng = random.Random(0)  # noqa: S311 - a sample, not a secret
    drawn: list[Observation] = []
    for number, seen in enumerate(_decided(rows, policy, scorer)):
        if number < most:
            drawn.append(seen)
        elif (place := rng.randrange(number + 1)) < most:
            drawn[place] = seen
    return drawn


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

    A thing judged more than once counts once, as most say; where as many say keep as remove, it is left out.
    """
    judged: list[Observation] = []
    matched: set[tuple[str, str]] = set()
    for row in rows:
        labels = [item["label"] for item in row["objects"] or ()]
        said = judgements(row["uri"], row["image_id"], labels, verdicts, matched)
        if said:
            context = _context(row, policy, scorer)
        judged += [Observation(labels[n], context.around(labels[n]), belongs) for n, belongs in said.items()]
    return judged, unmatched(verdicts, matched)


def judgements(
    uri: str, image_id: int, labels: Sequence[str], verdicts: Verdicts, matched: set[tuple[str, str]] | None = None
) -> dict[int, bool]:
    """Which things of an image, by place in `labels`, people judge to belong (True) or not; see `read_verdicts`.

    As most of the verdicts on a thing say; where as many say keep as remove, it is not judged. The verdicts that match a
    thing are added to `matched`.
    """
    votes: dict[int, list[bool]] = {}
    for key in {str(uri), str(image_id)} & verdicts.keys():
        for wanted, belongs in verdicts[key]:
            for number in places_of(wanted, labels):
                votes.setdefault(number, []).append(belongs)
                if matched is not None:
                    matched.add((key, wanted))
    return {n: 2 * sum(said) > len(said) for n, said in sorted(votes.items()) if 2 * sum(said) != len(said)}


def places_of(wanted: str, labels: Sequence[str]) -> list[int]:
    """The places of the things that a verdict names: by its place, or by its class, all of that class."""
    return [number for number, label in enumerate(labels) if wanted.lower() in (str(number), label)]


def unmatched(verdicts: Verdicts, matched: set[tuple[str, str]]) -> list[str]:
    """The verdicts that match no thing, as `image, object`."""
    asked = dict.fromkeys((key, wanted) for key, said in verdicts.items() for wanted, _ in said)
    return [f"{key}, {wanted}" for key, wanted in asked if (key, wanted) not in matched]


def read_verdicts(path: Path) -> Verdicts:
    """Human verdicts by image, from CSV with the columns image, object, verdict.

    An image is a uri or an image_id of the Parquet; an object its place in the row's `objects` (0 = first) or a class
    name, which stands for all of that class; a verdict is keep or remove. A line with a `grade` (1 to 5) and neither is
    about the result of the image, and passed over. Raises ValueError as `read_table`, and naming the line.
    """
    found: Verdicts = {}
    for number, (image, thing, verdict, grade) in read_table(path, ("image", "object", "verdict"), ("grade",)):
        if grade not in ("", "1", "2", "3", "4", "5"):
            raise ValueError(f"{path}, line {number}: a grade is 1 to 5")
        if image and grade and not thing and not verdict:
            continue
        if not image or not thing or verdict.lower() not in ("keep", "remove"):
            raise ValueError(f"{path}, line {number}: needs image, object, and a verdict keep or remove")
        found.setdefault(image, []).append((thing, verdict.lower() == "keep"))
    return found


def _context(row: Mapping[str, Any], policy: Policy, scorer: RelationScorer) -> SceneContext:
    things = [(o["label"], o["score"]) for o in row["objects"]]
    stuff = {s["label"]: s["confidence"] for s in row["stuff"] or ()}
    return context_of(things, stuff, policy, scorer)
