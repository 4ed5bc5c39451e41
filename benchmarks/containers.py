"""Tars on S3 through a run that is killed twice: what is written, its order, the memory, and images/s beside loose files.

    python benchmarks/containers.py [--tars 20] [--images 1000] [--loose]

Each tar holds small photos with a caption, every twelfth with a cat that is removed. The server is rclone's, on loopback.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from occpipe.dataset.reader import Published
from tests.chaos.corpus import make_corpus
from tests.chaos.runs import Run
from tests.helpers.containers import contents, tar_of
from tests.helpers.s3 import s3_environment, s3_server

DEATHS = (0.25, 0.6)
"""Shares of the rows after which the driver is killed."""


@contextmanager
def memory_of(run: Run) -> Iterator[list[int]]:
    """The resident bytes of a run and all that it started, twice a second."""
    sizes, ended = list[int](), threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            try:
                processes = [run.process, *run.process.children(recursive=True)]
                sizes.append(sum(process.memory_info().rss for process in processes))
            except psutil.Error:
                continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield sizes
    ended.set()
    thread.join()


def make(root: Path, tars: int, images: int) -> None:
    """The same photos as tars in `in`, and as files in `loose`."""
    photos = root / "bucket" / "loose"
    make_corpus(photos, tars * images)
    (root / "bucket" / "in").mkdir()
    names = sorted(photos.iterdir())
    for tar in range(tars):
        files = []
        for path in names[tar * images : (tar + 1) * images]:
            files += [(path.name, path.read_bytes()), (f"{path.stem}.txt", path.stem.encode())]
        (root / "bucket" / "in" / f"{tar:05d}.tar").write_bytes(tar_of(files))


def check(root: Path, total: int) -> str:
    """What the output holds, in words; AssertionError where a tar is not what it has to be."""
    rows = {row["uri"]: row for row in Published("s3://bucket/out").rows()}
    assert len(rows) == total
    changed = 0
    for path in sorted((root / "bucket" / "in").iterdir()):
        before = contents(path.read_bytes())
        after = contents((root / "bucket" / "out" / "images" / path.name).read_bytes())
        assert [name for name, _ in before] == [name for name, _ in after]
        for (name, old), (_, new) in zip(before, after, strict=True):
            is_cleaned = name.endswith(".jpg") and rows[f"{path.name}#{name}"]["status"] == "cleaned"
            assert is_cleaned or old == new
            changed += old != new
    objects = [path for path in (root / "bucket" / "out").rglob("*") if path.is_file()]
    return f"{len(rows)} rows, {changed} images changed, all members in their order; {len(objects)} objects"


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, default=20)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--loose", action="store_true", help="clean the same photos as files, too")
    options = parser.parse_args()
    total = options.tars * options.images
    settings = (f"shard.images={max(options.images, total // 3)}",)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "bucket").mkdir()
        make(root, options.tars, options.images)
        with s3_server(root) as address:
            os.environ.update(s3_environment(address))
            for share in DEATHS:
                run = Run("s3://bucket/in", "s3://bucket/out", settings=settings)
                try:
                    run.wait_for(int(share * total))
                except RuntimeError as error:
                    raise SystemExit(f"{error}: {run.finish()}") from None
                run.kill()
                print(f"killed after {run.rows_committed()} rows", flush=True)
            started = time.monotonic()
            run = Run("s3://bucket/in", "s3://bucket/out", settings=settings)
            left = total - run.rows_committed()
            with memory_of(run) as sizes:
                code, line = run.finish()
            print(f"exit code {code}, {line}; {left / (time.monotonic() - started):.1f} images/s", flush=True)
            third = max(1, len(sizes) // 3)
            peaks = [max(part, default=0) / 1e9 for part in (sizes[:third], sizes[third:-third], sizes[-third:])]
            print(f"peak memory in the thirds of the last run: {', '.join(f'{peak:.2f} GB' for peak in peaks)}")
            print(check(root, total), flush=True)
            if options.loose:
                started = time.monotonic()
                code, line = Run("s3://bucket/loose", "s3://bucket/out-loose", settings=settings).finish()
                objects = sum(path.is_file() for path in (root / "bucket" / "out-loose").rglob("*"))
                rate = total / (time.monotonic() - started)
                print(f"loose files: exit code {code}, {rate:.1f} images/s, {objects} objects")


if __name__ == "__main__":
    main()
