"""Utilization of a GPU in the middle of a run, for a GPU that sleeps in place of computing.

It sleeps `--work` seconds for each photo that it segments, and `--fill` seconds for each that it inpaints, a fifth of them.
All else runs on this machine's cores: reading, decoding and scaling photos of 3 MP, Arrow and Python in the actors, the
decision, decoding and encoding what is filled, the writing. The share is near 1 where the cores keep up and where they turn
the GPU's answer into rows while it works on the next batch. In the first run the segment pool is the limit, in the second
the inpaint pool.
Run: python -m benchmarks.gpu_busy [--photos 1200] [--work 0.05] [--fill 0.3]   (as root, or where namespaces may be made)
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

from PIL import Image as Pil
from ray.cluster_utils import Cluster

from benchmarks.inpaint_large import made_up_photo
from tests.chaos.__main__ import enter_namespace
from tests.chaos.runs import Run, count, hooked

SIZE = (2000, 1500)
MASKED = 5
"""One photo in so many is a wide one, in which something is removed."""
SETTINGS = (
    "segmenter.decode_side=640",
    "placement.segment.num_gpus=0.5",
    "placement.inpaint.num_gpus=0.5",
    "placement.segment.batch_size=32",
    "placement.inpaint.batch_size=16",
    "shard.images=8192",
    "ray.object_store_mb=1024",
)


def make_photos(folder: Path, photos: int) -> None:
    """Photos of 3 MP: one wide and one upright, under many names."""
    folder.mkdir()
    wide = Pil.fromarray(made_up_photo()).resize(SIZE, Pil.Resampling.LANCZOS)
    for name, picture in (("wide", wide), ("upright", wide.transpose(Pil.Transpose.ROTATE_90))):
        picture.save(folder.parent / f"{name}.jpg", quality=90)
    for number in range(photos):
        name = "upright" if number % MASKED else "wide"
        os.link(folder.parent / f"{name}.jpg", folder / f"{number:05d}.jpg")


def busy_shares(log: Path) -> dict[str, float]:
    """The share of the middle half of its sleeps in which each pool slept."""
    lines = [line.split() for line in log.read_text().splitlines()]
    shares = {}
    for pool in ("segment", "inpaint"):
        sleeps = sorted((float(begun), float(ended)) for name, begun, ended in lines if name == pool)
        middle = sleeps[len(sleeps) // 4 : 3 * len(sleeps) // 4 + 1]
        slept = sum(ended - begun for begun, ended in middle[:-1])
        shares[pool] = slept / (middle[-1][0] - middle[0][0])
    return shares


def measure(source: Path, output: Path, photos: int, work: float, fill: float) -> dict[str, float]:
    """The shares of a run; raises RuntimeError where an image is lost or doubled."""
    log = output.with_suffix(".log")
    chaos = {"work": work, "fill_work": fill, "asleep": str(log), "wide": 600}
    with patch.dict(os.environ, hooked(chaos)):  # the node's, and so its workers'
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "object_store_memory": 10**9}
        )
    try:
        run = Run(str(source), str(output), chaos=chaos, settings=(*SETTINGS, f"ray.address={cluster.address}"))
        code, message = run.finish()
    finally:
        cluster.shutdown()
    outcome = count(str(output), photos, injected=0)
    if code or not outcome.survived:
        raise RuntimeError(f"exit code {code}, {outcome}: {message}")
    return busy_shares(log)


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1200)
    parser.add_argument("--work", type=float, default=0.05)
    parser.add_argument("--fill", type=float, default=0.3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpu-busy-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        make_photos(root / "in", options.photos)
        print("the limit is       segment busy  inpaint busy", flush=True)
        for pool, fill in (("segment", options.work), ("inpaint", options.fill)):
            shares = measure(root / "in", root / pool, options.photos, options.work, fill)
            print(f"{pool:18} {shares['segment']:13.3f} {shares['inpaint']:13.3f}", flush=True)


if __name__ == "__main__":
    enter_namespace("benchmarks.gpu_busy")
    main()
