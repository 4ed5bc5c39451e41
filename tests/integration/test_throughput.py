"""The benchmark of throughput in small: how near a run comes to its stages alone; and the figures that it works out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image as Pil

from benchmarks import throughput
from benchmarks.corpus import ROOT, observe
from benchmarks.processes import kind_of
from benchmarks.ways import ahead, loop, sequential
from jobs.make_demo import photos, scenes
from occpipe.core.config_file import load_config
from occpipe.core.resources import cores
from occpipe.pipeline.planning.rates import Seconds
from tests.unit.pipeline.test_plan import MACHINE, one, rates

IMAGES = 2 * 13
"""Each photo of the demo twice."""
CORES = cores()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    for name, rgb in (*photos(), *scenes()):
        Pil.fromarray(rgb).save(folder / f"{name}.jpg", quality=92)
    return folder


def test_the_benchmark_says_how_near_a_run_comes_to_its_bound(demo: Path, tmp_path: Path) -> None:
    """The benchmark in small. So few images tell nothing of the ratio, which is mostly the start of Ray here."""
    command = [sys.executable, str(ROOT / "benchmarks" / "throughput.py"), "--photos", str(demo)]
    command += ["--limit", str(IMAGES), "--sample", "4", "--set", "inpainter.model=telea"]
    command += ["--ways", "occpipe", "--json", str(tmp_path / "figures.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert 0 < figures["efficiency"] < 1.1
    ratio = figures["images_per_s"] / figures["bound_images_per_s"]
    assert figures["efficiency"] == pytest.approx(ratio, abs=0.002)  # all three are rounded to three digits
    assert all(figures[f"cpu_s {kind}"] > 0 for kind in ("driver", "segment pool", "tasks"))


def test_other_ways_remove_what_occpipe_removes(demo: Path, tmp_path: Path) -> None:
    config, threads = load_config("local", ["policy.cut=0.24", "inpainter.model=telea"]), torch.get_num_threads()
    found = [demo / f"{name}.jpg" for name in ("cat_at_the_palace", "coffee")]
    for way in (sequential, loop):
        output = tmp_path / way.__name__
        output.mkdir()
        assert way(config, found, output)["images"] == 2
        written = {path.name: (output / path.name).read_bytes() == path.read_bytes() for path in found}
        assert written == {"cat_at_the_palace.jpg": False, "coffee.jpg": way is loop}, "the paper's way writes all anew"
    torch.set_num_threads(threads)


def test_batches_are_made_ahead_in_order() -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(ahead(pool, lambda item: item * 2, [1, 2, 3, 4, 5], 2)) == [[2, 4], [6, 8], [10]]


def test_the_bound_of_cores_and_of_a_gpu() -> None:
    """0.002 + 0.1 + 0.004 + 0.1 x 0.5 + 0.004 CPU seconds an image on four cores; on a GPU segment is the slowest."""
    alone = rates(overhead=throughput.NOTHING)
    assert throughput.bound_of(alone) == pytest.approx(4 / 0.16)
    gpu = rates(overhead=throughput.NOTHING, machine=MACHINE | {"gpu": "a GPU"}, inpaint=one(0.2))
    assert throughput.bound_of(gpu) == pytest.approx(1 / 0.1)


def test_the_bound_is_that_of_the_config_s_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run on CPUs of a machine that has a GPU, which nothing uses; each stage in its cheapest way."""
    known = rates(overhead=throughput.NOTHING)
    said = {
        name: getattr(known, name) for name in type(known).model_fields if name not in ("config", "machine", "overhead")
    }
    monkeypatch.setattr(throughput, "stage_costs", lambda *_: said | {"bytes_between": 1.0})
    monkeypatch.setattr(throughput, "side_by_side", lambda *_: [said | {"segment": Seconds(worker_s=0.09, cpu_s=0.09)}])
    monkeypatch.setattr(throughput, "gpu_name", lambda: "a GPU")
    made, between = throughput.best_rates(load_config(), [], tmp_path)
    assert (made.machine.gpu, between) == (None, 1.0)
    assert throughput.bound_of(made) == pytest.approx(CORES / (known.cpu_s - 0.01))


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("ray::MapWorker(MapBatches(SegmentWorker)).submit", "segment pool"),
        ("ray::MapWorker(MapBatches(InpaintWorker)).__init__", "inpaint pool"),
        ("ray::ReadUnitSource->SplitBlocks(4)", "tasks"),
        ("ray::commit_task", "tasks"),
        ("ray::Journal.begin", "journal"),
        ("ray::_StatsActor", "Ray's actors"),
        ("ray::IDLE", "idle workers"),
        ("/python -u /ray/dashboard/agent.py --node-id=1", "Ray's services"),
        ("/ray/core/src/ray/raylet/raylet --raylet_socket_name=x", "Ray's services"),
    ],
)
def test_a_process_is_known_by_its_title(title: str, kind: str) -> None:
    assert kind_of(title) == kind


def test_a_run_is_seen_from_outside(tmp_path: Path) -> None:
    """Half a second of one core, and a file after a quarter of it."""
    script = f"""
import pathlib, time
begun = time.process_time()
while time.process_time() < begun + 0.25: pass
pathlib.Path({str(tmp_path)!r}, "part.parquet").touch()
while time.process_time() < begun + 0.6: pass
"""
    seen = observe([sys.executable, "-c", script], (tmp_path,))
    assert seen.first_s is not None
    assert 0.25 <= seen.first_s < seen.seconds
    assert list(seen.cpu) == ["driver"]
    assert 0.1 < seen.cpu["driver"] <= seen.seconds + 0.1
    assert seen.memory > 0


def test_a_summary_is_the_median_with_its_range(tmp_path: Path) -> None:
    def run(seed: int, rate: float) -> dict[str, object]:
        ways = {"loop": {"images_per_s": 8.0}, "occpipe": {"images_per_s": rate}}
        return {"seed": seed, "images_per_s": rate, "bound_images_per_s": 16.0, "ways": ways}

    runs = [run(0, 12.0), run(1, 10.0), run(2, 15.0)]
    said = throughput.summary(runs)
    assert said["images_per_s"] == 12.0
    assert said["range"]["images_per_s"] == [10.0, 15.0]
    assert "seed" not in said
    throughput.plot(runs, tmp_path / "plot.png")
    with Pil.open(tmp_path / "plot.png") as picture:
        assert picture.size == (840, 384)
