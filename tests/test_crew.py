"""A run without Ray: chunks, and what becomes of images whose process dies. The real models run in test_pipeline.py."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from occpipe.config import Config, RayRuntime
from occpipe.config_file import load_config
from occpipe.crew import MOST_ROWS, UNKNOWN_BYTES, Crew, _own_path
from occpipe.errors import RunError
from occpipe.ledger import part_keys, read_parquet
from occpipe.pipeline import clean_corpus, needs_ray
from occpipe.placing import STAGES
from occpipe.published import Published
from occpipe.run_log import RunLog
from occpipe.schemas import MANIFEST
from occpipe.stages.discover import image_id
from occpipe.stages.sink import Sink
from occpipe.storage import open_store
from occpipe.summary import Tick


def manifest(*names: str, size: int | None = 1000) -> pa.Table:
    count = len(names)
    return pa.table([[*map(image_id, names)], [*names], [size] * count, [""] * count], schema=MANIFEST)


def crew(folder: Path, count: int, config: Config | None = None, stop: Event | None = None) -> Crew:
    sink = Sink(open_store(str(folder / "out")).uri, "images", 1, "copy", 2)
    return Crew(config or Config(), str(folder), sink, count, stop)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run over images of these names with fake models: their published rows by name, and the thin rows."""
    monkeypatch.setattr("occpipe.crew.START", "from tests.crew_worker import main; main()")
    monkeypatch.setattr("occpipe.crew.cores", lambda: 2)

    def clean(*names: str, stop: Event | None = None) -> tuple[dict[str, dict[str, Any]], list[str]]:
        thin = pa.concat_tables(crew(tmp_path, len(names), stop=stop).rows([manifest(*names)]))
        store = open_store(str(tmp_path / "out"))
        parts = [read_parquet(store, key).to_pylist() for key in part_keys(store)]
        return {row["uri"]: row for part in parts for row in part}, thin.column("uri").to_pylist()

    return clean


def seen(folder: Path) -> list[list[str]]:
    """Of each image in work, in order, the process and the name."""
    return [line.split() for line in (folder / "seen").read_text().splitlines()]


def test_each_image_is_done_once_on_two_processes(run: Any, tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(40)]
    rows, thin = run(*names)
    assert sorted(thin) == sorted(rows) == sorted(names)
    assert {row["status"] for row in rows.values()} == {"unchanged"}
    processes, looked_at = zip(*seen(tmp_path), strict=True)
    assert sorted(looked_at) == sorted(names)
    assert len({*processes}) == 2


def test_poison_costs_itself_and_bad_luck_nothing(run: Any, tmp_path: Path) -> None:
    rows, thin = run("a.jpg", "poison.jpg", "b.jpg", "unlucky.jpg", "c.jpg", "d.jpg")
    assert sorted(thin) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "poison.jpg", "unlucky.jpg"]
    assert {name for name, row in rows.items() if row["status"] == "error"} == {"poison.jpg"}
    assert rows["poison.jpg"]["reason"] == "crashed"
    assert rows["poison.jpg"]["error"]["stage"] == "segment"
    assert rows["poison.jpg"]["error"]["message"] == "its process died 3 times while it was in work"
    assert sum(name == "poison.jpg" for _, name in seen(tmp_path)) == 3


def test_what_is_wrong_with_more_than_an_image_ends_the_run(run: Any) -> None:
    with pytest.raises(RunError, match=r"^a worker failed: OSError: \[Errno 28\] No space left on device$"):
        run("a.jpg", "broken.jpg")


def test_one_that_dies_as_it_is_read_costs_itself(run: Any, tmp_path: Path) -> None:
    rows, thin = run("a.jpg", "unreadable.jpg", "b.jpg")
    assert sorted(thin) == ["a.jpg", "b.jpg", "unreadable.jpg"]
    assert {name for name, row in rows.items() if row["status"] == "error"} == {"unreadable.jpg"}
    assert rows["unreadable.jpg"]["error"]["stage"] == "fetch"
    assert rows["unreadable.jpg"]["error"]["message"] == "its process died 3 times while it was in work"


def test_an_output_that_cannot_be_written_ends_the_run_and_is_named(run: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ledger").write_text("in the way")
    with pytest.raises(RunError, match=r"^a worker failed: NotADirectoryError: .*ledger"):
        run("a.jpg")


def test_a_module_that_lies_among_the_photos_is_not_imported(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    (photos / "occpipe").mkdir(parents=True)
    for planted in ("occpipe/__init__.py", "torch.py", "pyarrow.py", "sitecustomize.py", "contextlib.py"):
        (photos / planted).write_text(f"open({str(tmp_path / 'planted')!r}, 'a').write({planted!r})")
    monkeypatch.chdir(photos)
    rows, _ = run("a.jpg")
    assert rows["a.jpg"]["status"] == "unchanged"
    assert not (tmp_path / "planted").exists()


def test_a_worker_looks_for_modules_where_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/elsewhere"])
    assert _own_path().split(os.pathsep) == ["/elsewhere", str(Path(__file__).parents[1])]


def test_a_worker_that_cannot_start_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.crew.START", "raise SystemExit('no such module')")
    with pytest.raises(RunError, match="a worker failed: no such module"):
        list(crew(tmp_path, 1).rows([manifest("a.jpg")]))


def test_nothing_is_begun_once_the_run_is_to_stop(run: Any, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(pa.ArrowInvalid, match="at least one table"):  # not a row was made
        run("a.jpg", "b.jpg", stop=stop)
    assert not (tmp_path / "seen").exists()


def test_it_says_what_its_stages_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks and a log as with Ray, without what only Ray has: pools, shares in use, a limit."""
    monkeypatch.setattr("occpipe.crew.START", "from tests.crew_worker import main; main()")
    monkeypatch.setattr("occpipe.pipeline.needs_ray", lambda *_: False)
    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(b"any")
    ticks: list[Tick] = []
    with RunLog(str(tmp_path / "log.jsonl"), Console(file=io.StringIO())) as log:

        def on_progress(tick: Tick) -> None:
            ticks.append(tick)
            log(tick)

        summary = clean_corpus(load_config(), str(tmp_path / "in"), str(tmp_path / "out"), on_progress=on_progress)
        log.end(summary)
    assert (ticks[0].stages, ticks[0].total) == ({}, 12)
    done = [tick.statuses.total() for tick in ticks]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 12)
    assert summary.over_all is ticks[-1]
    assert {name: sums.rows for name, sums in ticks[-1].stages.items()} == dict.fromkeys(STAGES, 12)
    assert all(sums.busy_s > 0 and not sums.waited_s for sums in ticks[-1].stages.values())
    assert [(pace.queue, pace.busy, pace.cpu, pace.gpu) for pace in ticks[-1].paces.values()] == [
        (0, None, None, None)
    ] * 5
    assert {tick.limit for tick in ticks} == {None}
    first, *_, end = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (first["event"], first["done"], end["event"], end["done"]) == ("tick", 0, "end", 12)
    assert {name: stage["rows"] for name, stage in end["stages"].items()} == dict.fromkeys(STAGES, 12)


def test_what_waits_in_a_hand_is_dropped_at_a_stop(run: Any, tmp_path: Path) -> None:
    class OnceSeen(Event):
        def is_set(self) -> bool:
            return (tmp_path / "seen").exists()

    names = [f"slow{number}.jpg" for number in range(40)]
    rows, thin = run(*names, stop=OnceSeen())
    assert sorted(thin) == sorted(rows) == sorted(name for _, name in seen(tmp_path)), "what was begun is finished"
    assert 2 <= len(thin) < 20, "two processes have two chunks of five or six each"


def test_a_watcher_that_fails_is_heard_when_all_is_published(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("occpipe.pipeline.needs_ray", lambda *_: False)
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(b"looked at by nobody")
    ticks: list[Tick] = []

    def on_progress(tick: Tick) -> None:
        ticks.append(tick)
        if len(ticks) == 2:
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        clean_corpus(Config(), str(tmp_path / "in"), str(tmp_path / "out"), on_progress=on_progress)
    assert len(ticks) == 2
    assert Published(str(tmp_path / "out")).manifest["status"]["unchanged"] == 5


def test_chunks_are_large_first_and_small_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.crew.cores", lambda: 2)
    names = [f"{number}.jpg" for number in range(1000)]
    sizes = [len(chunk) for chunk in crew(tmp_path, 1000)._chunks([manifest(*names[:600]), manifest(*names[600:])])]
    assert sum(sizes) == 1000
    assert sizes[0] == MOST_ROWS
    assert sizes[-6:] == [1] * 6
    assert len(sizes) < 50


def test_a_chunk_holds_no_more_bytes_than_a_block(tmp_path: Path) -> None:
    config = Config(ray=RayRuntime(block_mb=1))
    large = manifest(*(f"{number}.jpg" for number in range(100)), size=400_000)
    assert {len(chunk) for chunk in crew(tmp_path, 100, config)._chunks([large])} == {1, 2}


def test_a_photo_of_unknown_size_counts_for_some_mb(tmp_path: Path) -> None:
    config = Config(ray=RayRuntime(block_mb=UNKNOWN_BYTES * 5 >> 20))
    listed = manifest(*(f"{number}.jpg" for number in range(1000)), size=None)
    assert max(len(chunk) for chunk in crew(tmp_path, 1000, config)._chunks([listed])) == 5


def test_a_process_holds_models_so_there_are_four_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("occpipe.crew.cores", lambda: 16)
    made = crew(tmp_path, 1000)
    assert (made._count, made._threads) == (4, 4)
    assert made._job.config.placement.segment.threads == 4
    assert crew(tmp_path, 3)._count == 3


def test_it_starts_without_what_it_does_not_need() -> None:
    """Ray's import takes seconds, and torch's is for those processes that load a model."""
    modules = "occpipe.cli, occpipe.pipeline, occpipe.worker, occpipe.apply, occpipe.dry_run"
    code = f"import sys, {modules}; print([m for m in ('ray', 'duckdb', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("settings", "images", "wanted"),
    [
        ((), 9_999, False),
        ((), 10_000, True),
        (("ray.from_images=0",), 1, True),
        (("ray.address=auto",), 1, True),
        (("placement.segment.num_gpus=1",), 1, True),
    ],
)
def test_ray_is_for_what_needs_it(
    settings: tuple[str, ...], images: int, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert needs_ray(load_config("local", settings), images) is wanted
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert needs_ray(load_config("local", settings), images)
