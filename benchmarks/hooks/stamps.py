"""Loaded by every Python process of `benchmarks/startup.py`: it logs the moments of start, imports, loads and first work.

A line of JSON for each moment, in a file for each process below the folder OCCPIPE_STAMPS. The product knows nothing of it:
heavy modules are watched by an import hook, and what is called in them is replaced when they are there.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

CALLS = {
    "ray": ("init",),
    "occpipe.models.loading": ("load_segmenter", "load_inpainter"),
    "occpipe.stages.load": ("Load.__call__",),
    "occpipe.stages.segment": ("SegmentStage.__call__",),
    "occpipe.stages.inpaint": ("InpaintStage.__call__",),
}
"""What is called in a module, by its name there: the first call that ends is written down."""
IMPORTS = {*CALLS, "torch", "ray.data", "cv2", "pyarrow.compute", "occpipe.pipeline.run"}


class Stamps:
    """The file of this process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{os.getpid()}.jsonl"
        self._said: set[str] = set()

    def say(self, what: str, begun: float) -> None:
        """Something began then and has ended now; the first time counts."""
        if what not in self._said:
            self._said.add(what)
            line = {"what": what, "begun": begun, "ended": time.time()}
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def timed(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, written down."""

        @functools.wraps(call)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            begun = time.time()
            result = call(*arguments, **named)
            self.say(what, begun)
            return result

        return wrapped


class Finder(MetaPathFinder):
    """Finds no module itself, and times those of IMPORTS that others find."""

    def __init__(self, stamps: Stamps) -> None:
        self._stamps, self._inside = stamps, set[str]()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders have, with a loader that is timed."""
        if fullname not in IMPORTS or fullname in self._inside:
            return None
        self._inside.add(fullname)
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        self._inside.discard(fullname)
        if spec is not None and spec.loader is not None:
            run = self._stamps.timed(f"import {fullname}", spec.loader.exec_module)

            def exec_module(module: ModuleType) -> None:
                run(module)
                self._replace(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one instance
        return spec

    def _replace(self, module: ModuleType) -> None:
        for name in CALLS.get(module.__name__, ()):
            *owners, last = name.split(".")
            owner = getattr(module, owners[0]) if owners else module
            what = f"first {owners[0]}" if owners else f"{module.__name__}.{last}"
            setattr(owner, last, self._stamps.timed(what, getattr(owner, last)))


def install(folder: str) -> None:
    """Begin."""
    stamps = Stamps(Path(folder))
    stamps.say("process", time.time())
    sys.meta_path.insert(0, Finder(stamps))
