"""Memory and time of the index of annotations: a million of them in 20 COCO files, and what a worker holds then.

    python benchmarks/annotations.py [--annotations 1000000] [--files 20]

Two processes are measured one after the other: one that makes the index, and one that asks it for images as a worker does.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from occpipe.models.segmenters import Photo
from occpipe.models.segmenters.annotations import Annotations

THINGS = 8
"""Things in an image, each a polygon of 40 corners."""


def write_files(folder: Path, annotations: int, files: int) -> int:
    """COCO files of so many annotations in all; the bytes written."""
    rng = random.Random(0)  # noqa: S311 - equal files each time
    folder.mkdir()
    categories = [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}, {"id": 124, "name": "grass"}]
    each = annotations // files // THINGS
    for number in range(files):
        names = [f"{number:02}/{index:07}.jpg" for index in range(each)]
        with (folder / f"{number:02}.json").open("w") as file:
            images = [{"id": i, "file_name": name, "height": 480, "width": 640} for i, name in enumerate(names)]
            file.write('{"images": ' + json.dumps(images) + ', "annotations": [')
            for index in range(each * THINGS):
                polygon = [round(rng.uniform(0, 480), 2) for _ in range(80)]
                entry = {"id": index, "image_id": index // THINGS, "category_id": rng.choice((1, 17, 124))}
                file.write(", " * bool(index) + json.dumps({**entry, "iscrowd": 0, "segmentation": [polygon]}))
            file.write('], "categories": ' + json.dumps(categories) + "}")
    return sum(path.stat().st_size for path in folder.iterdir())


def ask(folder: Path, images: int) -> None:
    """Open the index, which is made where it is not there, and read images; print time and memory."""
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    labels = Annotations(str(folder / "labels"), folder=folder / "index")
    opened = time.perf_counter() - start
    pixels = np.zeros((480, 640, 3), np.uint8)
    files = sorted(path.stem for path in (folder / "labels").iterdir())
    rng = random.Random(1)  # noqa: S311
    start = time.perf_counter()
    for _ in range(images):
        (scene,) = labels.segment_named([Photo(f"{rng.choice(files)}/{rng.randrange(100):07}.jpg", 480, 640, pixels)])
        if isinstance(scene, Exception):
            raise scene
    each = (time.perf_counter() - start) / max(1, images) * 1000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{opened:8.1f} s to open, {each:6.2f} ms an image, {peak / 1024:7.0f} MB at most, imports {before / 1024:.0f}"
    )


def main() -> None:
    """Write the files, then measure each process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        ask(options.ask, options.images)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_files(folder / "labels", options.annotations, options.files)
        print(f"{options.annotations} annotations in {options.files} files, {size / 1e6:.0f} MB")
        for title, images in (("makes the index", 0), ("asks it", 500)):
            print(f"{title:16}", end="", flush=True)
            command = [sys.executable, __file__, "--ask", str(folder), "--images", str(images)]
            subprocess.run(command, check=True)
        (index,) = (folder / "index").glob("*.sqlite")
        print(f"the index has {index.stat().st_size / 1e6:.0f} MB on the disk")


if __name__ == "__main__":
    main()
