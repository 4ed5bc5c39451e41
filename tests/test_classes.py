from __future__ import annotations

import pytest

from occpipe.classes import coco_stuff, is_thing, token


def test_the_table_is_coco_stuff() -> None:
    names = [c.name for c in coco_stuff()]
    assert len(names) == len(set(names)) == 182
    assert sum(c.is_thing for c in coco_stuff()) == 91
    assert (names[0], names[90], names[91], names[181]) == ("person", "hair brush", "banner", "wood")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("person", "person"),
        ("stop sign", "stopsign"),
        ("wall-brick", "wall"),
        ("building-other-merged", "building"),
        ("tree-merged", "tree"),
        ("table-merged", "table"),
        ("window-blind", "window"),
        ("Hair_Drier", "hairdryer"),
        ("unicorn", "unicorn"),
    ],
)
def test_tokens(name: str, expected: str) -> None:
    assert token(name) == expected


@pytest.mark.parametrize(
    ("name", "thing"),
    [("person", True), ("sky-other-merged", False), ("table-merged", False), ("dining table", True), ("unicorn", True)],
)
def test_things_and_stuff(name: str, thing: bool) -> None:
    assert is_thing(name) is thing
