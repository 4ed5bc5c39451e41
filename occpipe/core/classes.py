"""The class names: the 182 of COCO-Stuff (91 things, 91 stuff) with the caption token of each.

Source: COCO-Stuff (Caesar et al., CVPR 2018), label ids 1 to 182. A token is one word, so that sub-types share
one vector (wall-brick and wall-tile are both wall). The COCO panoptic names of segmenters have the same tokens, without
their endings `-merged`, `-other` and `-stuff`.
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
    """Whether a class of a panoptic segmenter is a thing; a class that is not in COCO-Stuff counts as a thing."""
    entry = coco_stuff_class(name)
    return entry.is_thing if entry else True


def coco_stuff_class(name: str) -> ClassName | None:
    """The COCO-Stuff class of a segmenter's class name, or None.

    Names are looked up unchanged, and with the endings that COCO panoptic changed (`tree-merged`, `table-merged`).
    """
    name = _normal(name)
    bare = name.removesuffix("-merged")
    candidates = (name, bare, f"{bare}-other", f"{bare}-stuff")
    return next((_by_name()[c] for c in candidates if c in _by_name()), None)


def fault_of_class(name: str, others: Iterable[str] = ()) -> str | None:
    """The error message for a class name that does not exist, with the nearest one; None for a class that exists.

    The classes are those of COCO-Stuff and `others`, the classes of a user's own segmenter.
    """
    names = {token(other): other for other in others} | {c.token: c.name for c in coco_stuff()}
    if token(name) in names:
        return None
    normal = _normal(name)
    synonym = names.get(aliases().get(normal, ""))
    near = [synonym] if synonym else difflib.get_close_matches(normal, [*names, *names.values()], n=1)
    return f"there is no class {name!r:.60}" + (f", did you mean {near[0]}?" if near else "")


@cache
def aliases() -> Mapping[str, str]:
    """Caption word or phrase to class token, from `aliases.csv` and the class names themselves."""
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
    tokens = _tokens()
    if name in tokens:
        return tokens[name]
    for suffix in ("-merged", "-other", "-stuff"):
        name = name.removesuffix(suffix)
    for candidate in (name, f"{name}-other", f"{name}-stuff"):
        if candidate in tokens:
            return tokens[candidate]
    head = name.split("-")[0]
    return tokens.get(f"{head}-other", head.replace(" ", ""))
