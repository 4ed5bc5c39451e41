"""The fault table: each fault is a run that is struck, the runs that go on from there, and what is published then."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from occpipe.errors import OutputBusyError, StorageError
from tests.chaos.corpus import POISON
from tests.chaos.network import Proxy
from tests.chaos.runs import Outcome, Run, count
from tests.s3 import s3_environment, s3_server

INTERRUPTED = 130
TRIES = 4


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault plays: the corpus, how many images it has, and an empty folder."""

    source: Path
    images: int
    folder: Path

    @property
    def output(self) -> str:
        """Where the run writes."""
        return str(self.folder / "out")


Fault = Callable[[Scene], Outcome]


def _resume(source: str, output: str, **options: Any) -> None:
    """Run until a run ends well, as a user who types the same command again."""
    for _ in range(TRIES):
        code, last = Run(source, output, **options).finish()
        if code == 0:
            return
    raise RuntimeError(f"no run of {TRIES} ended well: {code}, {last}")


def nothing(scene: Scene) -> Outcome:
    """No fault, for comparison."""
    _resume(str(scene.source), scene.output)
    return count(scene.output, scene.images)


def worker_dies(stage: str) -> Fault:
    """A worker is killed in the middle of a stage; the run itself goes on."""

    def fault(scene: Scene) -> Outcome:
        once = scene.folder / "died"
        code, last = Run(
            str(scene.source), scene.output, chaos={"die_in": stage, "after": 2, "once": str(once)}
        ).finish()
        if code or not once.exists():
            raise RuntimeError(f"exit code {code}, died {once.exists()}: {last}")
        return count(scene.output, scene.images)

    return fault


def driver_dies(share: float) -> Fault:
    """The driver is killed when a share of the rows is committed; the same command goes on."""

    def fault(scene: Scene) -> Outcome:
        run = Run(str(scene.source), scene.output)
        run.wait_for(int(share * scene.images))
        done = run.rows_committed()
        run.kill()
        _resume(str(scene.source), scene.output)
        return count(scene.output, scene.images, f"killed at {done} rows")

    return fault


def signalled(number: signal.Signals) -> Fault:
    """The run is asked to end: it finishes what it has begun, publishes that, and says how to go on."""

    def fault(scene: Scene) -> Outcome:
        run = Run(str(scene.source), scene.output)
        run.wait_for(scene.images // 5)
        if number is signal.SIGINT:
            os.killpg(run.process.pid, number)  # as a terminal does: to all that it has started
        else:
            run.process.send_signal(number)
        code, last = run.finish()
        if code != INTERRUPTED:
            raise RuntimeError(f"exit code {code}: {last}")
        published = count(scene.output, scene.images).published
        if "goes on from here" not in last or not 0 < published < scene.images:
            raise RuntimeError(f"exit code {code}, {published} published: {last}")
        _resume(str(scene.source), scene.output)
        return count(scene.output, scene.images, f"{published} published when it stopped")

    return fault


def node_lost(*, replaced: bool) -> Fault:
    """One of three nodes is taken away in the middle of the run."""

    def fault(scene: Scene) -> Outcome:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
        try:
            workers = [cluster.add_node(num_cpus=1, object_store_memory=10**8) for _ in range(2)]
            run = Run(str(scene.source), scene.output, settings=(f"ray.address={cluster.address}",))
            run.wait_for(scene.images // 5)
            cluster.remove_node(workers[0], allow_graceful=False)
            if replaced:
                cluster.add_node(num_cpus=1, object_store_memory=10**8)
            code, last = run.finish()
        finally:
            cluster.shutdown()
        if code:
            raise RuntimeError(f"exit code {code}: {last}")
        return count(scene.output, scene.images)

    return fault


def poison(scene: Scene) -> Outcome:
    """An image kills every process that decodes it: it alone becomes an error row."""
    code, last = Run(str(scene.source), scene.output, chaos={"die_in": "segment", "poison": POISON.hex()}).finish()
    if code:
        raise RuntimeError(f"exit code {code}: {last}")
    return count(scene.output, scene.images, "1 error row", errors=1)


def out_of_memory(scene: Scene) -> Outcome:
    """A GPU that holds two images at once, and one image that it cannot hold at all."""
    code, last = Run(str(scene.source), scene.output, chaos={"memory": 2}).finish()
    if code:
        raise RuntimeError(f"exit code {code}: {last}")
    return count(scene.output, scene.images, "1 error row", errors=1)


@contextmanager
def _bucket(scene: Scene) -> Iterator[Proxy]:
    """The corpus in a bucket behind a proxy that fails."""
    shutil.copytree(scene.source, scene.folder / "s3" / "bucket" / "in")
    with s3_server(scene.folder / "s3") as server:
        proxy = Proxy(server)
        environment = s3_environment(("127.0.0.1", proxy.server_address[1]))
        os.environ.update(environment)
        try:
            yield proxy
        finally:
            for name in environment:
                del os.environ[name]
            proxy.shutdown()


def s3_fails(scene: Scene) -> Outcome:
    """Three in ten requests fail for a while: 500, 503 Slow Down, resets, short reads."""
    output = "s3://bucket/out"
    with _bucket(scene) as proxy:
        run = Run("s3://bucket/in", output)
        proxy.wait_for(scene.images)
        proxy.spoilt = False
        run.finish()
        _resume("s3://bucket/in", output, settings=("output.retry=errors",))
        return count(output, scene.images, f"{proxy.injected} requests failed")


def disk_full(scene: Scene) -> Outcome:
    """The disk of the output fills up; after there is room again the same command goes on."""
    out = Path(scene.output)
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(out)], check=True)
    try:
        code, last = Run(str(scene.source), scene.output).finish()
        if code not in (StorageError.exit_code, 1) or "space" not in last:
            raise RuntimeError(f"exit code {code}: {last}")
        subprocess.run(["mount", "-o", "remount,size=256m", str(out)], check=True)
        _resume(str(scene.source), scene.output, settings=("output.retry=errors",))
        return count(scene.output, scene.images, f"exit code {code}")
    finally:
        subprocess.run(["umount", str(out)], check=True)


def two_writers(scene: Scene) -> Outcome:
    """A second run on the same output is refused while the first one writes."""
    first = Run(str(scene.source), scene.output)
    first.wait_for(1)
    code, last = Run(str(scene.source), scene.output).finish()
    if code != OutputBusyError.exit_code:
        raise RuntimeError(f"exit code {code}: {last}")
    first.finish()
    return count(scene.output, scene.images)


FAULTS: dict[str, Fault] = {
    "no fault": nothing,
    **{f"kill -9 of a worker in {stage}": worker_dies(stage) for stage in ("segment", "relate", "inpaint")},
    "kill -9 in the middle of a part's write": worker_dies("sink"),
    **{f"kill -9 of the driver at {share:.0%}": driver_dies(share) for share in (0.1, 0.5, 0.9)},
    "SIGTERM": signalled(signal.SIGTERM),
    "Ctrl-C": signalled(signal.SIGINT),
    "a second writer": two_writers,
    "an image that kills its process": poison,
    "GPU out of memory (injected)": out_of_memory,
    "S3: 500, 503, resets, short reads": s3_fails,
    "disk full": disk_full,
    "a node of three lost, replaced": node_lost(replaced=True),
    "a node of three lost": node_lost(replaced=False),
}
