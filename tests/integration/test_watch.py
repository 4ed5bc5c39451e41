"""What a run says while it goes on: snapshots, JSON lines and metrics, pure and of one real run."""

from __future__ import annotations

import io
import json
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import ray
from rich.console import Console

from occpipe.cli.logs import set_up
from occpipe.cli.progress import PLAIN_INTERVAL_S, LiveProgress, describe_reasons, describe_stages, stages_table
from occpipe.core.config_file import load_config
from occpipe.core.config_placement import Placement
from occpipe.pipeline.monitoring.metrics import COUNTERS, GAUGES, values_of
from occpipe.pipeline.monitoring.monitor import SPAN_S, WARM_UP_S, Monitor, monitored
from occpipe.pipeline.monitoring.run_log import RunLog
from occpipe.pipeline.monitoring.run_result import ProgressSnapshot, RunCounts, RunResult
from occpipe.pipeline.monitoring.stage_statistics import StageStatistics
from occpipe.pipeline.monitoring.utilization import Utilization
from occpipe.pipeline.ray.connection import job_name
from occpipe.pipeline.ray.journal import Journal, JournalHandle
from occpipe.pipeline.run import clean_corpus
from occpipe.pipeline.steps import POOLS, STAGES
from tests.chaos.corpus import SETTINGS, make_corpus
from tests.integration.test_readme import ROOT

BROKEN = "broken.jpg"
COUNT = 24


Watched: TypeAlias = tuple[RunResult, list[ProgressSnapshot], list[dict[str, Any]], list[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Watched:
    """A run over some images and a broken one: its summary, snapshots, log and what the node's agent then serves."""
    folder = tmp_path_factory.mktemp("watched")
    make_corpus(folder / "in", COUNT)
    (folder / "in" / BROKEN).write_bytes(b"no image")
    snapshots: list[ProgressSnapshot] = []
    set_up("warning", str(folder / "log.jsonl"))
    with RunLog() as log:

        def on_progress(snapshot: ProgressSnapshot) -> None:
            snapshots.append(snapshot)
            log(snapshot)

        summary = clean_corpus(
            load_config("local", SETTINGS), str(folder / "in"), str(folder / "out"), on_progress=on_progress
        )
        log.end(summary)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return summary, snapshots, lines, scraped(job_name(str(folder / "out")))


def scraped(output: str) -> list[str]:
    """The lines about an output that this node's agent serves to Prometheus; it hears of them every few seconds."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    for _ in range(60):
        with urllib.request.urlopen(address, timeout=10) as answer:
            text = answer.read().decode()
        lines = [line for line in text.splitlines() if f'output="{output}"' in line]
        if total_of(lines, "ray_occpipe_images_total") == COUNT + 1:  # the driver's last word
            return lines
        time.sleep(0.5)
    raise AssertionError("no metrics of the run after 30 s")


def total_of(lines: list[str], metric: str) -> float:
    return sum(float(line.split()[-1]) for line in lines if line.startswith(metric))


def test_each_image_is_counted_in_each_stage(run: Watched) -> None:
    summary, snapshots, _, _ = run
    assert summary.final is snapshots[-1]
    assert snapshots[0].stages == {}
    assert (snapshots[0].total, snapshots[-1].statuses.total()) == (COUNT + 1, COUNT + 1)
    assert snapshots[-1].reasons == {"not_an_image": 1}
    assert {name: sums.rows for name, sums in snapshots[-1].stages.items()} == dict.fromkeys(STAGES, COUNT + 1)
    assert all(sums.busy_s > 0 for sums in snapshots[-1].stages.values())
    assert {name for name, use in snapshots[-1].utilization.items() if use.busy is not None} == set(POOLS)
    assert {use.queue for use in snapshots[-1].utilization.values()} == {0}


def test_the_log_says_what_its_page_says(run: Watched) -> None:
    summary, _, lines, _ = run
    page = (ROOT / "docs" / "watching.md").read_text().partition("## As JSON lines")[2].partition("\n## ")[0]
    table = re.findall(r"^\| (`.*?) \| (.*) \|$", page, re.M)
    fields = {name: says for names, says in table for name in re.findall(r"`(\w+)`", names)}
    records = [line for line in lines if line["event"] == "log"]
    assert "occpipe.pipeline.run" in {line["logger"] for line in records}
    kept = {"version", "event", "time", "level", "logger", "message"}
    assert [line.keys() - kept for line in records] == [set()] * len(records), records
    lines = [line for line in lines if line["event"] != "log"]
    *during, end = lines
    assert {line["event"] for line in during} == {"tick"}
    assert end["event"] == "end"
    for line in lines:
        kept = {name for name, says in fields.items() if not says.startswith(("`end`", "`failed`"))}
        assert line.keys() == kept | ({"stopped", "done_before", "published"} if line is end else set())
        assert [*line["stages"]] == list(STAGES)
        assert {*line["stages"]["segment"]} <= {*re.findall(r"`(\w+)`", fields["stages"])}
    assert (end["done"], end["published"], end["done_before"], end["stopped"]) == (COUNT + 1, COUNT + 1, 0, False)
    assert end["status"] == {name: count for name, count in summary.manifest["status"].items() if count}
    assert end["stages"]["write"]["rows"] == COUNT + 1
    times = [line["seconds"] for line in lines]
    assert times == sorted(times)


def test_prometheus_gets_each_metric(run: Watched) -> None:
    served = run[3]
    names = {line.partition("{")[0] for line in served}
    without_gpu = {"ray_occpipe_stage_gpu_use"}
    assert names - without_gpu == {f"ray_{name}" for name in (*COUNTERS, *GAUGES)} - without_gpu
    (errors,) = (line for line in served if line.startswith("ray_occpipe_closed_images_total"))
    assert 'reason="not_an_image"' in errors
    assert errors.endswith(" 1.0")
    assert total_of(served, "ray_occpipe_images_total") == COUNT + 1
    rows = [float(line.split()[-1]) for line in served if line.startswith("ray_occpipe_stage_rows_total")]
    assert rows == [COUNT + 1] * len(STAGES)


def test_the_dashboard_and_the_page_know_these_metrics_and_no_other() -> None:
    ours = {f"ray_{name}" for name in (*COUNTERS, *GAUGES)}
    board = json.loads((ROOT / "cluster" / "grafana-dashboard.json").read_text())
    drawn = {name for panel in board["panels"] for target in panel["targets"] for name in metrics_in(target["expr"])}
    assert drawn == ours
    asked = [variable["query"] for variable in board["templating"]["list"]]
    assert {name for query in asked for name in metrics_in(query)} <= ours
    assert metrics_in((ROOT / "docs" / "watching.md").read_text()) == ours
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}", "whoever imports it has another one"
        assert all('output=~"$output"' in target["expr"] for target in panel["targets"])
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bray_occpipe_\w+", text))


def test_counters_say_only_what_a_tick_knows() -> None:
    snapshot = ProgressSnapshot(Counter(cleaned=2), 5, 1.0, Counter(missing=1), {"write": StageStatistics(3, 0.5)})
    assert values_of(snapshot) == [
        ("occpipe_images_to_do", 5, {}),
        ("occpipe_images_total", 2, {"status": "cleaned"}),
        ("occpipe_closed_images_total", 1, {"reason": "missing"}),
        ("occpipe_stage_rows_total", 3, {"stage": "write"}),
        ("occpipe_stage_busy_seconds_total", 0.5, {"stage": "write"}),
        ("occpipe_stage_waiting_seconds_total", 0.0, {"stage": "write"}),
    ]


def segmented(rows: int, busy: float, waited: float = 0.0) -> dict[str, StageStatistics]:
    return {"load": StageStatistics(100, 1.0), "segment": StageStatistics(rows, busy, waited)}


def monitor_of(total: int, counts: RunCounts | None = None) -> Monitor:
    monitor = Monitor(counts or RunCounts(), 0.0, Placement())
    monitor.total = total
    return monitor


def test_a_tick_looks_back_half_a_minute_and_the_last_one_over_all() -> None:
    monitor = monitor_of(1000)
    monitor.snapshot({"load": StageStatistics(100, 1.0)}, {}, 10.0)
    for second in range(11, 101):
        snapshot = monitor.snapshot(segmented((second - 10) * 2, second - 10), {"CPU": 1.0}, float(second))
    assert snapshot.utilization["segment"].images_per_s == pytest.approx(2)
    assert snapshot.utilization["segment"].at_work == pytest.approx(1)
    monitor.snapshot(segmented(180, 90), {}, 100.0 + SPAN_S / 2)
    assert monitor.snapshot(segmented(180, 90), {}, 100.0 + SPAN_S).utilization["segment"].images_per_s == 0
    last = monitor.snapshot(segmented(180, 90), {}, 100.0 + SPAN_S, final=True)
    assert last.utilization["segment"].images_per_s == pytest.approx(180 / (90 + SPAN_S))
    assert last.utilization["load"].queue == 900
    assert last.utilization["relate"].queue == 180


def test_what_limits_a_run_is_said_once_it_is_in_its_stride() -> None:
    monitor = monitor_of(1000)
    monitor.snapshot({}, {}, 10.0)
    early = monitor.snapshot(segmented(30, 9.9), {"CPU": 1.0}, 10.0 + WARM_UP_S - 1)
    late = monitor.snapshot(segmented(40, 19.9), {"CPU": 1.0}, 10.0 + WARM_UP_S)
    assert early.limit is None
    assert late.limit == "segment is the limit (at work 100% of its time), raise placement.segment.max_size (now 1)"


@pytest.mark.usefixtures("ray_cluster")
def test_a_watcher_that_fails_is_kept_and_a_stop_still_heard() -> None:
    snapshots: list[ProgressSnapshot] = []
    counts, journal, stop = RunCounts(), JournalHandle(), threading.Event()

    def on_progress(snapshot: ProgressSnapshot) -> None:
        snapshots.append(snapshot)
        if len(snapshots) == 2:
            assert threading.current_thread() is not threading.main_thread()
            raise ValueError("no more")

    with monitored(monitor_of(1, counts), journal, "/out", stop, on_progress):
        until(lambda: counts.progress_error is not None)
        assert not journal.call(Journal.is_stopping)
        stop.set()
        until(lambda: journal.call(Journal.is_stopping))
    assert str(counts.progress_error) == "no more"
    assert len(snapshots) == 2


@pytest.mark.usefixtures("ray_cluster")
def test_metrics_that_cannot_be_had_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such metric")

    monkeypatch.setattr("occpipe.pipeline.monitoring.metrics.Metrics.publish", fail)
    snapshots: list[ProgressSnapshot] = []
    counts = RunCounts()
    with monitored(monitor_of(1, counts), JournalHandle(), "/out", threading.Event(), snapshots.append):
        pass
    assert counts.progress_error is None
    assert counts.final is snapshots[-1]


def until(holds: Callable[[], bool]) -> None:
    for _ in range(400):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("not within 20 s")


def test_the_words_for_a_terminal() -> None:
    use = {"load": Utilization(40.06, 0.2, None, 0, None, None), "segment": Utilization(11.2, 1.0, 0.97, 64, 0.5, None)}
    assert describe_stages(use) == "load 40.1/s (0 wait), segment 11.2/s (64 wait)"
    assert describe_reasons(Counter(missing=1, truncated=3)) == "3 truncated, 1 missing"
    screen = Console(file=io.StringIO(), width=100, force_terminal=False)
    screen.print(stages_table(use))
    printed = screen.file.getvalue()  # type: ignore[attr-defined]  # it is the one given
    heads = [word.strip() for word in printed.splitlines()[1].split("┃") if word.strip()]
    assert heads == ["stage", "images/s", "workers at work", "at work", "cores", "rows waiting"]
    assert [cell.strip() for cell in printed.splitlines()[4].split("│")[1:-1]] == [
        "segment", "11.2", "1.0", "97%", "50%", "64"
    ]  # fmt: skip


def test_a_line_elsewhere_says_the_limit_once() -> None:
    screen = Console(file=io.StringIO(), width=200)
    with LiveProgress(screen) as progress:
        for number, limit in enumerate(("segment is the limit (97%)", "segment is the limit (96%)", "write (90%)"), 1):
            progress._last_line = -PLAIN_INTERVAL_S
            progress(ProgressSnapshot(Counter(unchanged=number), 9, number, Counter(missing=1), limit=limit))
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the one given
    assert lines[0] == "1/9 1.0 images/s, 1 unchanged (1 missing)"
    assert [line.strip() for line in lines if line.startswith("  ")] == ["segment is the limit (97%)", "write (90%)"]
