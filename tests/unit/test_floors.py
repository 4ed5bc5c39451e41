"""The rooms of the package stand on floors, and imports point down."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "occpipe"
FLOORS = ("core", "io", "models", "dataset", "stages", "pipeline", "analysis", "training", "api", "cli")
"""From the ground up; `training` and `analysis` use no `pipeline`."""
TOP_LEVEL = {"__init__.py", "__main__.py", "api.py", "py.typed"}
APART = {("analysis", "pipeline"), ("training", "pipeline"), ("training", "analysis"), ("training", "stages")}


def imported_rooms(file: Path) -> set[str]:
    """The rooms that a module imports from, also within its functions."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        rooms.update(name.split(".")[1] for name in names if name.startswith("occpipe."))
    return rooms


@pytest.mark.parametrize("floor", range(len(FLOORS)), ids=FLOORS)
def test_imports_point_down(floor: int) -> None:
    room = FLOORS[floor]
    place = PACKAGE / room
    allowed = {*FLOORS[: floor + 1]} - {below for above, below in APART if above == room}
    for file in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
        assert imported_rooms(file) <= allowed, file.relative_to(PACKAGE)


def test_the_package_has_these_rooms_and_no_other_modules() -> None:
    # not the folders: those of an older checkout may still hold what Python compiled
    files = [path.relative_to(PACKAGE).parts for path in PACKAGE.rglob("*") if path.is_file()]
    entries = {parts[0] for parts in files if "__pycache__" not in parts}
    assert entries <= {*FLOORS} - {"api"} | TOP_LEVEL


def test_each_room_says_what_it_is() -> None:
    rooms = [path.parent for path in PACKAGE.rglob("__init__.py")]
    missing = [room.name for room in rooms if not ast.get_docstring(ast.parse((room / "__init__.py").read_text()))]
    assert missing == []
