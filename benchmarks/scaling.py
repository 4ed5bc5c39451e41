"""The rate of 1, 2 and 3 simulated nodes on this machine, with a GPU each in name.

What bounds it: the segmenter sleeps `--work` seconds an image in place of computing, so n nodes can do n / work images/s.
All else (decoding, the decision, the writing, Ray's hops) shares this machine's cores and must hide behind that. Each node
adds as many images, since work is divided by blocks of 64 rows; the rate is that of the middle half of the rows, so that
starting does not count, and as many are in work at its begin as at its end. A simulation: it says what the pipeline adds to
the GPU's time, not what a GPU does.
Run: python -m benchmarks.scaling [--images 600] [--nodes 1 2 3] [--work 0.15]   (as root, or where namespaces may be made)
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from ray.cluster_utils import Cluster

from tests.chaos.__main__ import enter_namespace
from tests.chaos.corpus import make_corpus
from tests.chaos.runs import Run, count, hooked


def pools(nodes: int) -> tuple[str, ...]:
    """Half a GPU for each actor, and an actor of each pool for each node."""
    sizes = [
        f"placement.{pool}.{key}={nodes}" for pool in ("segment", "inpaint") for key in ("max_size", "initial_size")
    ]
    return (*sizes, "placement.segment.num_gpus=0.5", "placement.inpaint.num_gpus=0.5")


def measure(source: Path, output: Path, images: int, nodes: int, work: float) -> float:
    """Images/s in the middle of a run on so many nodes; raises RuntimeError where an image is lost or doubled."""
    node = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 10**8}
    with patch.dict(os.environ, hooked({"work": work})):  # the nodes', and so their workers'
        cluster = Cluster(initialize_head=True, head_node_args=node)
        for _ in range(nodes - 1):
            cluster.add_node(**node)
    try:
        address = f"ray.address={cluster.address}"
        run = Run(str(source), str(output), chaos={"work": work}, settings=(*pools(nodes), address))
        run.wait_for(images // 4)
        begun, first = time.monotonic(), run.rows_committed()
        run.wait_for(3 * images // 4)
        ended, last = time.monotonic(), run.rows_committed()
        code, message = run.finish()
    finally:
        cluster.shutdown()
    outcome = count(str(output), images, injected=0)
    if code or not outcome.survived:
        raise RuntimeError(f"exit code {code}, {outcome}: {message}")
    rate = (last - first) / (ended - begun)
    if rate > 1.1 * nodes / work:
        raise RuntimeError(f"{rate:.1f} images/s on {nodes} nodes: the work of {work} s an image was not done")
    return rate


def main() -> None:
    """Print a line for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--work", type=float, default=0.15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scaling-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        print("nodes  images/s  of the bound  efficiency", flush=True)
        alone = 0.0
        for nodes in options.nodes:
            images = options.images * nodes
            make_corpus(root / f"in{nodes}", images)
            rate = measure(root / f"in{nodes}", root / str(nodes), images, nodes, options.work)
            alone = alone or rate / nodes
            print(
                f"{nodes:5} {rate:9.2f} {rate * options.work / nodes:13.2f} {rate / (nodes * alone):11.2f}", flush=True
            )


if __name__ == "__main__":
    enter_namespace("benchmarks.scaling")
    main()
