from __future__ import annotations

import pytest

from occpipe.core.classes import coco_stuff, coco_stuff_class, is_thing, token


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [("grass-merged", "grass"), ("sky-other-merged", "sky-other"), ("Dining_Table", "dining table"), ("unicorn", None)],
)
def test_names_of_segmenters_find_their_class(name: str, expected: str | None) -> None:
    found = coco_stuff_class(name)
    assert (found.name if found else None) == expected
