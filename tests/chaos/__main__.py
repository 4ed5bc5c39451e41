"""The fault table on a corpus of small photos: `python -m tests.chaos [--images 600] [--storage disk] [--only TEXT]`.

It runs as root, or where a user may make namespaces, in a network namespace that has nothing but a loopback interface: once
on the local disk and once on a real S3 server. It prints a line per fault; the exit code is 1 where one was not survived.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from tests.chaos.corpus import make_corpus
from tests.chaos.faults import FAULTS, Fault, Scene, nothing
from tests.chaos.runs import MORE_SETTINGS
from tests.helpers.s3 import s3_environment, s3_server

_INSIDE = "OCCPIPE_CHAOS_INSIDE"
_WIDTHS = {
    "injected": 9,
    "survived": 9,
    "expected": 9,
    "published": 10,
    "twice": 6,
    "lost": 5,
    "whole": 9,
    "seconds": 8,
}
_TITLE = f"{'storage':8}{'fault':44}" + "".join(f"{name:>{width}}" for name, width in _WIDTHS.items()) + "  note"


def enter_namespace(module: str) -> None:
    """Start a module again in namespaces of our own: no network but loopback, and mounts that nobody else sees."""
    if os.environ.get(_INSIDE):
        return
    inside = f'ip link set lo up && exec "{sys.executable}" -m {module} "$@"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = [
        "unshare",
        *user,
        "--net",
        "--mount",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        inside,
        "chaos",
        *sys.argv[1:],
    ]
    os.execvpe("unshare", command, {**os.environ, _INSIDE: "1"})


@contextmanager
def scenes(storage: str, images: int, root: Path) -> Iterator[Callable[[int], Scene]]:
    """A corpus on a storage, "disk" or "s3", and what makes the scene of the n-th fault on it."""
    if storage == "disk":
        make_corpus(root / "in", images)
        yield lambda n: Scene(str(root / "in"), str(root / str(n) / "out"), images, root / str(n))
        return
    make_corpus(root / "s3" / "bucket" / "in", images)
    with s3_server(root / "s3") as server, patch.dict(os.environ, s3_environment(server)):
        yield lambda n: Scene("s3://bucket/in", f"s3://bucket/out{n}", images, root / str(n), server)


def inject(storage: str, name: str, fault: Fault, scene: Scene) -> bool:
    """Inject a fault, print its line, and say whether it was survived."""
    start = time.monotonic()
    try:
        o = fault(scene)
        struck = o.injected > 0 or fault is nothing
        survived, note = o.survived and struck, o.note if struck else "the fault never struck"
        counts = (o.injected, "yes" if survived else "NO", o.expected, o.published, o.duplicates, o.lost)
        cells = [*counts, f"{o.whole}/{o.written}"]
    except Exception as error:  # noqa: BLE001 - a fault that breaks the harness is one not survived
        cells = ["", "NO", *[""] * 5]
        survived, note = False, f"{type(error).__name__}: {error}"
    cells.append(f"{time.monotonic() - start:.0f}")
    line = "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS.values(), strict=True))
    print(f"{storage:8}{name:44}{line}  {note}", flush=True)
    return survived


def main() -> int:
    """Inject every fault, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--storage", choices=list(FAULTS), help="Only this one of them.")
    parser.add_argument("--only", action="append", help="Faults whose name holds this text; repeatable.")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="Settings of all runs.")
    args = parser.parse_args()
    os.environ[MORE_SETTINGS] = " ".join(args.set)
    failed = 0
    print(_TITLE, flush=True)
    for storage in [args.storage] if args.storage else list(FAULTS):
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
            root = Path(folder)
            with scenes(storage, args.images, root) as scene:
                for number, (name, fault) in enumerate(FAULTS[storage].items()):
                    if args.only and not any(text in name for text in args.only):
                        continue
                    (root / str(number)).mkdir()
                    failed += not inject(storage, name, fault, scene(number))
                    shutil.rmtree(root / str(number), ignore_errors=True)
    print(f"{failed} faults were not survived")
    return int(failed > 0)


if __name__ == "__main__":
    enter_namespace("tests.chaos")
    sys.exit(main())
