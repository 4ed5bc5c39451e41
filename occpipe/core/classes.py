"""The class names: the 182 of COCO-Stuff (91 things, 91 stuff) with the caption token of each.

Source: COCO-Stuff (Caesar et al., CVPR 2018), label ids 1 to 182. A token is one word, so that sub-types share
one vector (wall-brick and wall-tile are both wall). The COCO panoptic names of segmenters map onto the same
tokens after dropping `-merged`, `-other` and `-stuff`.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class ClassName:
    """One class: COCO-Stuff id, name, whether it is a thing, and its caption token."""

    id: int
    name: str
    is_thing: bool
    token: str


@cache
def coco_stuff() -> tuple[ClassName, ...]:
    """The 182 classes in id order: things are ids 1 to 91, stuff 92 to 182."""
    text = files("occpipe").joinpath("core/classes.csv").read_text()
    return tuple(
        ClassName(int(r["id"]), r["name"], r["kind"] == "thing", r["token"]) for r in csv.DictReader(text.splitlines())
    )


def is_thing(name: str) -> bool:
    """Whether a class of a panoptic segmenter is a thing; a class that COCO-Stuff does not know counts as one."""
    known = coco_stuff_class(name)
    return known.is_thing if known else True


def coco_stuff_class(name: str) -> ClassName | None:
    """The COCO-Stuff class that a segmenter's class name means, or None.

    Names are looked up as they are and with the endings that COCO panoptic changed (`tree-merged`, `table-merged`).
    """
    name = _normal(name)
    bare = name.removesuffix("-merged")
    candidates = (name, bare, f"{bare}-other", f"{bare}-stuff")
    return next((_by_name()[c] for c in candidates if c in _by_name()), None)


def fault_of_class(name: str, others: Iterable[str] = ()) -> str | None:
    """What is wrong with a class name that a user wrote, with the name that may be meant; None where nothing is.

    Known are the names of COCO-Stuff and `others`, those of a segmenter of the user's own.
    """
    known = {token(other): other for other in others} | {c.token: c.name for c in coco_stuff()}
    if token(name) in known:
        return None
    written = _normal(name)
    meant = known.get(aliases().get(written, ""))
    near = [meant] if meant else difflib.get_close_matches(written, [*known, *known.values()], n=1)
    return f"there is no class {name!r:.60}" + (f", did you mean {near[0]}?" if near else "")


@cache
def aliases() -> Mapping[str, str]:
    """Caption word or phrase to class token, from `data/aliases.csv` and the class names themselves."""
    text = files("occpipe").joinpath("core/aliases.csv").read_text()
    table = {row["alias"]: row["token"] for row in csv.DictReader(text.splitlines())}
    for c in coco_stuff():
        table.setdefault(c.name, c.token)
        table.setdefault(c.token, c.token)
    return table


@cache
def _by_name() -> dict[str, ClassName]:
    return {c.name: c for c in coco_stuff()}


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", " ")


@cache
def _tokens() -> dict[str, str]:
    return {c.name: c.token for c in coco_stuff()}


def token(name: str) -> str:
    """The caption token of a class name: `building-other-merged` -> `building`, `stop sign` -> `stopsign`."""
    name = _normal(name)
    known = _tokens()
    if name in known:
        return known[name]
    for suffix in ("-merged", "-other", "-stuff"):
        name = name.removesuffix(suffix)
    for candidate in (name, f"{name}-other", f"{name}-stuff"):
        if candidate in known:
            return known[candidate]
    head = name.split("-")[0]
    return known.get(f"{head}-other", head.replace(" ", ""))
