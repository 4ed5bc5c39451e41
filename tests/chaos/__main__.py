"""The fault table on a corpus of small photos: `python -m tests.chaos [--images 600] [--only TEXT]`.

It runs as root, or where a user may make namespaces, in a network namespace that has nothing but a loopback interface, and
prints a line per fault; the exit code is 1 where a fault was not survived.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.corpus import make_corpus
from tests.chaos.faults import FAULTS, Scene

_INSIDE = "OCCPIPE_CHAOS_INSIDE"
_COLUMNS = {"survived": 9, "expected": 9, "published": 10, "twice": 6, "lost": 5, "broken": 7, "seconds": 8}
_TITLE = f"{'fault':42}" + "".join(f"{name:>{width}}" for name, width in _COLUMNS.items()) + "  note"


def enter_namespace() -> None:
    """Start again in namespaces of our own: no network but loopback, and mounts that nobody else sees."""
    if os.environ.get(_INSIDE):
        return
    inside = f'ip link set lo up && exec "{sys.executable}" -m tests.chaos "$@"'
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


def main() -> int:
    """Inject every fault, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--only", action="append", help="Faults whose name holds this text; repeatable.")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    failed = 0
    try:
        make_corpus(root / "in", args.images)
        print(_TITLE, flush=True)
        for number, (name, fault) in enumerate(FAULTS.items()):
            if args.only and not any(text in name for text in args.only):
                continue
            folder = root / str(number)
            folder.mkdir()
            start = time.monotonic()
            try:
                o = fault(Scene(root / "in", args.images, folder))
                counts = f"{o.expected:9}{o.published:10}{o.duplicates:6}{o.lost:5}{o.broken:7}"
                survived, note = o.survived, o.note
            except Exception as error:  # noqa: BLE001 - a fault that breaks the harness is one not survived
                survived, counts, note = False, " " * 37, f"{type(error).__name__}: {error}"
            failed += not survived
            line = f"{name:42}{'yes' if survived else 'NO':>9}{counts}{time.monotonic() - start:8.0f}  {note}"
            print(line, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{failed} faults were not survived")
    return int(failed > 0)


if __name__ == "__main__":
    enter_namespace()
    sys.exit(main())
