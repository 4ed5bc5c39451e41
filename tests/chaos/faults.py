"""The fault table: each fault is a run that is struck, the runs that go on from there, and what is published then."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image as Pil
from ray.cluster_utils import Cluster

from occpipe.core.errors import OutputBusyError, StorageError
from occpipe.dataset.layout import FIRST, METADATA
from occpipe.dataset.parquet import read_parquet
from occpipe.dataset.shards import list_shards
from occpipe.io.storage import open_store
from tests.chaos.corpus import POISON, SETTINGS
from tests.chaos.network import Proxy
from tests.chaos.runs import Outcome, Run, count, hooked
from tests.helpers.published import publish_scan, seen_row

INTERRUPTED = 130
TRIES = 4
AWAY_S = 120.0
MAX_REPEATED = 1_024
"""Images that may be loaded again where a node is lost."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault plays: a corpus and how many images it has, an output that is not there yet, and an empty folder.

    `server` is the S3 server that holds corpus and output, or None where they are on disk. `verb` is what a run does.
    """

    source: str
    output: str
    images: int
    folder: Path
    server: tuple[str, int] | None = None
    verb: str = "clean"

    @property
    def struck(self) -> Path:
        """A file that gets a byte for each time that the fault strikes within the run."""
        return self.folder / "struck"

    def run(self, *, settings: Sequence[str] = (), options: Sequence[str] = (), **chaos: Any) -> Run:
        """Start a run; `chaos` is what the hooks are told."""
        told = chaos | {"struck": str(self.struck)} if chaos else None
        return Run(self.source, self.output, verb=self.verb, chaos=told, settings=settings, options=options)

    def times_struck(self) -> int:
        """How often the fault has struck within the run."""
        return self.struck.stat().st_size if self.struck.exists() else 0


Fault = Callable[[Scene], Outcome]


def _resume(scene: Scene, *settings: str) -> None:
    """Run until a run ends well, as a user who types the same command again."""
    for _ in range(TRIES):
        code, last = scene.run(settings=settings).finish()
        if code == 0:
            return
    raise RuntimeError(f"no run of {TRIES} ended well: {code}, {last}")


def nothing(scene: Scene) -> Outcome:
    """No fault, for comparison."""
    _resume(scene)
    return count(scene.output, scene.images, injected=0)


def worker_dies(stage: str) -> Fault:
    """A worker is killed in the middle of a stage; the run itself goes on."""

    def fault(scene: Scene) -> Outcome:
        code, last = scene.run(die_in=stage, after=2, once=True).finish()
        if code:
            raise RuntimeError(f"exit code {code}: {last}")
        return count(scene.output, scene.images, injected=scene.times_struck())

    return fault


def dies_before_the_sums(scene: Scene) -> Outcome:
    """The driver is killed when all shards are committed and the sums are not written."""
    # the hook strikes at each call, and the first one writes empty sums when the work begins
    run = scene.run(die_in="sums", after=1, once=True)
    code, _ = run.finish()
    if code != -signal.SIGKILL:
        raise RuntimeError(f"exit code {code}")
    _resume(scene)
    return count(scene.output, scene.images, injected=scene.times_struck())


def driver_dies(share: float) -> Fault:
    """The driver is killed when a share of the rows is committed; the same command goes on."""

    def fault(scene: Scene) -> Outcome:
        run = scene.run()
        run.wait_for(int(share * scene.images))
        done = run.rows_committed()
        run.kill()
        _resume(scene)
        return count(scene.output, scene.images, injected=1, note=f"killed at {done} rows")

    return fault


def apply_dies(scene: Scene) -> Outcome:
    """The driver of an `apply` is killed in the middle; its scan is made up, with a cat in the upper half of each photo."""
    store, rows = open_store(scene.source), []
    for entry in store.walk():
        with Pil.open(io.BytesIO(store.read(entry.key))) as picture:
            mask = np.zeros((picture.height, picture.width), np.uint8)
        mask[: len(mask) // 2] = 1
        rows.append(seen_row(scene.source, entry.key, [("cat", mask)]))
    scan = publish_scan(scene.folder / "scan", scene.source, rows, *SETTINGS)
    return driver_dies(0.5)(replace(scene, source=scan.uri, verb="apply"))


def signalled(number: signal.Signals) -> Fault:
    """The run is asked to end: it finishes what it has begun, publishes that, and says how to go on."""

    def fault(scene: Scene) -> Outcome:
        run = scene.run()
        run.wait_for(scene.images // 5)
        if number is signal.SIGINT:
            os.killpg(run.process.pid, number)  # as a terminal does: to all that it has started
        else:
            run.process.send_signal(number)
        code, last = run.finish()
        if code != INTERRUPTED:
            raise RuntimeError(f"exit code {code}: {last}")
        published = count(scene.output, scene.images, injected=1).published
        if "goes on from here" not in last or not 0 < published < scene.images:
            raise RuntimeError(f"exit code {code}, {published} published: {last}")
        _resume(scene)
        return count(scene.output, scene.images, injected=1, note=f"{published} published when it stopped")

    return fault


def node_lost(*, replaced: bool) -> Fault:
    """One of three nodes is taken away in the middle of the run."""

    def fault(scene: Scene) -> Outcome:
        decoded = scene.folder / "decoded"
        told = {"count": str(decoded), "struck": str(scene.struck)}
        with patch.dict(os.environ, hooked(told)):  # the nodes', and so their workers'
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
        try:
            workers = [cluster.add_node(num_cpus=1, object_store_memory=10**8) for _ in range(2)]
            run = scene.run(settings=(f"ray.address={cluster.address}",), count=str(decoded))
            run.wait_for(scene.images // 5)
            cluster.remove_node(workers[0], allow_graceful=False)
            if replaced:
                cluster.add_node(num_cpus=1, object_store_memory=10**8)
            code, last = run.finish()
        finally:
            cluster.shutdown()
        if code:
            raise RuntimeError(f"exit code {code}: {last}")
        repeated = decoded.stat().st_size - scene.images
        if repeated > MAX_REPEATED:
            raise RuntimeError(f"{repeated} images were loaded again")
        return count(scene.output, scene.images, injected=1, note=f"{repeated} images loaded again")

    return fault


def poison(scene: Scene) -> Outcome:
    """An image kills every process that decodes it: it alone becomes an error row."""
    code, last = scene.run(die_in="load", poison=POISON.hex()).finish()
    if code:
        raise RuntimeError(f"exit code {code}: {last}")
    return count(scene.output, scene.images, injected=scene.times_struck(), note="1 error row", errors=1)


def out_of_memory(scene: Scene) -> Outcome:
    """A GPU that holds two images at once, and one image that it cannot hold at all."""
    code, last = scene.run(memory=2).finish()
    if code:
        raise RuntimeError(f"exit code {code}: {last}")
    return count(scene.output, scene.images, injected=scene.times_struck(), note="1 error row", errors=1)


def broken_gpu(scene: Scene) -> Outcome:
    """One of two segmenters fails at each image: its rows that are errors are done again by the next run."""
    pools = ("placement.segment.max_size=2", "placement.segment.initial_size=2", "placement.segment.num_cpus=0.25")
    code, last = scene.run(settings=pools, broken=True, once=True).finish()
    if code:
        raise RuntimeError(f"exit code {code}: {last}")
    failed = count(scene.output, scene.images, injected=1).errors
    if failed > 3 * 4:  # three batches of four
        raise RuntimeError(f"{failed} error rows")
    _resume(scene)
    return count(scene.output, scene.images, injected=scene.times_struck(), note=f"{failed} error rows, done again")


def two_drivers(scene: Scene) -> Outcome:
    """Two drivers work on one output, on every second shard each."""
    runs = [scene.run(options=("--shard", f"{index}/2")) for index in (0, 1)]
    ends = [run.finish() for run in runs]
    if any(code for code, _ in ends):
        raise RuntimeError(f"ends: {ends}")
    return count(scene.output, scene.images, injected=1)


def reader(scene: Scene) -> Outcome:
    """Somebody reads all that is published, all the time, through a run and a second one that replaces files."""
    store, seen, twice, ended = open_store(scene.output), [0], [0], Event()

    def read() -> None:
        while not ended.wait(0.05):
            names: list[str] = []
            for shard in list_shards(store, METADATA):
                with suppress(FileNotFoundError):
                    names += read_parquet(store, FIRST.rows(shard), ["uri"]).column("uri").to_pylist()
            seen[0] = max(seen[0], len(names))
            twice[0] += len(names) - len(set(names))

    thread = Thread(target=read, daemon=True)
    thread.start()
    try:
        _resume(scene)
        source = open_store(scene.source)
        for number in range(0, scene.images, 50):
            data = source.read(f"{number:04d}.jpg")
            source.write(f"{number:04d}.jpg", data + b"changed")
        _resume(scene)
    finally:
        ended.set()
        thread.join()
    if twice[0]:
        raise RuntimeError(f"{twice[0]} images were seen twice")
    return count(scene.output, scene.images, injected=1, note=f"up to {seen[0]} rows seen, none twice")


def s3_away(scene: Scene) -> Outcome:
    """Nothing answers for two minutes; the run waits and goes on."""
    assert scene.server, "a fault of S3"
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    proxy = Proxy(scene.server)
    proxy.spoilt = False
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        run = scene.run()
        run.wait_for(scene.images // 10)
        proxy.away = True
        time.sleep(AWAY_S)
        proxy.away = False
        code, last = run.finish()
        if code:
            raise RuntimeError(f"exit code {code}: {last}")
        return count(scene.output, scene.images, injected=1)
    finally:
        proxy.shutdown()
        os.environ["AWS_ENDPOINT_URL"] = endpoint


def s3_fails(scene: Scene) -> Outcome:
    """Three in ten requests fail for a while: 500, 503 Slow Down, resets, short reads."""
    assert scene.server, "a fault of S3"
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    proxy = Proxy(scene.server)
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        run = scene.run()
        proxy.wait_for(scene.images)
        proxy.spoilt = False
        run.finish()
        _resume(scene, "output.retry=errors")
        return count(scene.output, scene.images, injected=proxy.injected)
    finally:
        proxy.shutdown()
        os.environ["AWS_ENDPOINT_URL"] = endpoint


def disk_full(scene: Scene) -> Outcome:
    """The disk of the output fills up; after there is room again the same command goes on."""
    Path(scene.output).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", scene.output], check=True)
    try:
        code, last = scene.run().finish()
        if code not in (StorageError.exit_code, 1) or "space" not in last:
            raise RuntimeError(f"exit code {code}: {last}")
        subprocess.run(["mount", "-o", "remount,size=256m", scene.output], check=True)
        _resume(scene, "output.retry=errors")
        return count(scene.output, scene.images, injected=1, note=f"exit code {code}")
    finally:
        subprocess.run(["umount", scene.output], check=True)


def two_writers(scene: Scene) -> Outcome:
    """A second run on the same output is refused while the first one writes."""
    first = scene.run()
    first.wait_for(1)
    code, last = scene.run().finish()
    if code != OutputBusyError.exit_code:
        raise RuntimeError(f"exit code {code}: {last}")
    code, last = first.finish()
    if code:
        raise RuntimeError(f"exit code {code}: {last}")
    return count(scene.output, scene.images, injected=1)


_EVERYWHERE: dict[str, Fault] = {
    "no fault": nothing,
    **{f"kill -9 of a worker in {stage}": worker_dies(stage) for stage in ("load", "segment", "relate", "inpaint")},
    "kill -9 in the middle of a part's write": worker_dies("write"),
    "kill -9 within a commit": worker_dies("commit"),
    "kill -9 before the sums": dies_before_the_sums,
    **{f"kill -9 of the driver at {share:.0%}": driver_dies(share) for share in (0.1, 0.5, 0.9)},
    "kill -9 of an apply at 50%": apply_dies,
    "SIGTERM": signalled(signal.SIGTERM),
    "Ctrl-C": signalled(signal.SIGINT),
    "a second writer": two_writers,
    "two drivers, a share each": two_drivers,
    "a reader all the time": reader,
    "a broken GPU, one of two": broken_gpu,
    "an image that kills its process": poison,
    "GPU out of memory (injected)": out_of_memory,
    "a node of three lost, replaced": node_lost(replaced=True),
    "a node of three lost": node_lost(replaced=False),
}
FAULTS: dict[str, dict[str, Fault]] = {
    "disk": _EVERYWHERE | {"disk full": disk_full},
    "s3": _EVERYWHERE | {"500, 503, resets, short reads": s3_fails, "away for two minutes": s3_away},
}
"""Per kind of storage the faults, in the order in which they are injected."""
