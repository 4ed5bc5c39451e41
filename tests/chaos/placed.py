"""Two runs at once on a cluster of three kinds of nodes, with stages pinned to them: `python -m tests.chaos.placed`.

It looks from outside which node's raylet the actors of each pool hang on, and says in JSON: per output whether each image
was published once, per pool on which nodes its actors were seen and how many at once, and what a run that does not fit
is told.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

from occpipe.core.config import RayRuntime
from occpipe.core.config_file import load_config
from occpipe.core.errors import CapacityError
from occpipe.pipeline.ray.capacity import check_capacity
from occpipe.pipeline.ray.connection import ray_session
from tests.chaos.__main__ import enter_namespace
from tests.chaos.corpus import make_corpus
from tests.chaos.runs import Run, count

IMAGES = 40
STORE = {"object_store_memory": 10**8}
NODES = {
    "io": {"num_cpus": 1, "labels": {"pool": "io"}},
    "sees": {"num_cpus": 2, "num_gpus": 1, "labels": {"pool": "sees"}},
    "fills": {"num_cpus": 2, "num_gpus": 1, "resources": {"fast": 1}},
}
PINS = (
    "placement.load.labels={pool: 'in(io, disks)'}",
    "placement.segment.labels={pool: sees}",
    "placement.segment.num_gpus=0.5",
    "placement.inpaint.resources={fast: 0.5}",
    "placement.inpaint.num_gpus=0.5",
    "placement.write.labels={pool: '!sees'}",
)
POOLS = {"SegmentWorker": "segment", "InpaintWorker": "inpaint"}


def where(raylets: dict[int, str]) -> dict[str, list[str]]:
    """For each actor of each pool that lives now, its node."""
    found: dict[str, list[str]] = defaultdict(list)
    for pid, node in raylets.items():
        for worker in psutil.Process(pid).children():
            try:
                title = " ".join(worker.cmdline())
            except psutil.Error:
                continue  # it has ended
            for name, pool in POOLS.items():
                if name in title:
                    found[pool].append(node)
    return found


def shortage(address: str) -> str:
    """What a run is told whose `write` may only run on nodes that are not there."""
    placement = load_config("local", [*PINS, "placement.write.labels={pool: disks}"]).placement
    with ray_session(RayRuntime(address=address)):
        try:
            check_capacity(placement)
        except CapacityError as error:
            return str(error)
    return ""


def main() -> None:
    """Run both, watch, print."""
    with tempfile.TemporaryDirectory(prefix="placed-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        make_corpus(root / "in", IMAGES)
        cluster = Cluster(initialize_head=True, head_node_args={**NODES["io"], **STORE})
        nodes = {"io": cluster.head_node} | {n: cluster.add_node(**NODES[n], **STORE) for n in ("sees", "fills")}
        raylets = {node.all_processes["raylet"][0].process.pid: name for name, node in nodes.items()}
        address = f"ray.address={cluster.address}"
        try:
            lacking = shortage(cluster.address)
            runs = {name: Run(str(root / "in"), str(root / name), settings=(*PINS, address)) for name in ("a", "b")}
            seen: dict[str, set[str]] = defaultdict(set)
            at_once: Counter[str] = Counter()
            while any(run.process.poll() is None for run in runs.values()):
                for pool, names in where(raylets).items():
                    seen[pool] |= {*names}
                    at_once[pool] = max(at_once[pool], len(names))
                time.sleep(0.2)
            ends = {name: run.finish() for name, run in runs.items()}
        finally:
            cluster.shutdown()
        outcomes = {name: count(str(root / name), IMAGES, injected=0) for name in runs}
        told = {
            "ends": {name: end[0] for name, end in ends.items()},
            "survived": {name: outcome.survived for name, outcome in outcomes.items()},
            "seen": {pool: sorted(names) for pool, names in seen.items()},
            "at_once": at_once,
            "lacking": lacking,
        }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    enter_namespace("tests.chaos.placed")
    main()
