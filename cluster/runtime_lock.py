"""Print the part of requirements.lock that a node needs to run occpipe: no tests, no training, no linters.

Versions and hashes are those of the lock, for `pip install --no-deps --require-hashes`. `--cpu` leaves out PyTorch, whose
builds for CPUs are not on PyPI, and CUDA. Needs nothing but Python 3.11, so that it runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXTRAS = ("hf", "gcs")
_CUDA = re.compile(r"torch|torchvision|triton|cuda-.*|nvidia-.*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def blocks(lock: str) -> Iterator[tuple[str, str, set[str]]]:
    """The name of each package of a lock, its lines, and what it is there for, as `# via` says."""
    for block in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE):
        if name := _NAME.match(block):
            yield name[0], block, {word for line in re.findall(r"#(.*)", block) for word in _NAME.findall(line)}


def runtime(lock: str, project: dict[str, Any], *, cpu: bool = False) -> str:
    """The lines of the packages that a project (the table of its pyproject.toml) and its `EXTRAS` need, at any depth."""
    direct: list[str] = [*project["dependencies"]]
    for extra in EXTRAS:
        direct += project["optional-dependencies"][extra]
    packages = {name: (lines, parents) for name, lines, parents in blocks(lock)}
    needed = {match[0] for line in direct if (match := _NAME.match(line))}
    while more := {name for name, (_, parents) in packages.items() if parents & needed} - needed:
        needed |= more
    return "".join(packages[name][0] for name in sorted(needed) if not (cpu and _CUDA.fullmatch(name)))


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    root = here if (here / "requirements.lock").exists() else here.parent
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    sys.stdout.write(
        runtime((root / "requirements.lock").read_text("utf-8"), settings["project"], cpu="--cpu" in sys.argv)
    )
