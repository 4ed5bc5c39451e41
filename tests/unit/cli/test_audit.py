from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from occpipe.analysis.audit import audit
from occpipe.cli.audit_tables import stage_table, tables
from occpipe.cli.main import app
from tests.helpers.published import publish_rows, removed_row, scene_row
from tests.helpers.s3 import s3_environment, s3_server
from tests.helpers.scenes import encoded, gradient
from tests.unit.analysis.test_report import data_of

ROOT = Path(__file__).parents[3]
ESCAPE = "\x1b]0;owned\x07"
FORMULA = "=HYPERLINK(1)"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of strangers: names that steer a terminal, are markup, or are formulas to a spreadsheet."""
    rows = [removed_row(n, {"cat": 0.05, f"{ESCAPE}[red]dog": 0.8}, {"grass": 0.9}, share=n / 10) for n in (1, 2)]
    rows[0]["uri"], rows[1]["uri"] = f"{ESCAPE}[bold]/1.jpg", f"{FORMULA}.jpg"
    error = {"stage": "fetch", "type": "ImageError", "message": ESCAPE}
    rows.append({"image_id": 3, "uri": "3.jpg", "status": "error", "reason": "missing", "error": error, "config": "c"})
    return publish_rows(tmp_path_factory.mktemp("cli") / "cleaned", [*rows, scene_row(4, {"car": 0.9}, {})])


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_tables_fit_a_terminal_and_names_do_not_steer_it(output: Path) -> None:
    printed = run("audit", output)
    assert max(map(len, printed.splitlines())) <= 80
    assert "\x1b" not in printed
    assert "\\x1b]0;owned\\x07[red]dog" not in printed.split("Removed")[1].split("Kept")[0], "it stays"
    assert "\\x1b]0;owned\\x07[bold]/1.jpg" in printed, "markup is text"
    for title in ("Images", "Not cleaned", "Removed", "Kept", "Relation scores, cut 0.117", "Where"):
        assert f"\n{title} " in printed
    assert [line.split()[:3] for line in printed.splitlines() if line.startswith("  cleaned")] == [
        ["cleaned", "2", "50.0%"]
    ]
    assert "20.0% filled" in printed


def test_a_terminal_without_blocks_gets_hashes(output: Path) -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for table in tables(audit(str(output)), ascii_only=True):
        console.print(table)
    assert "########################" in console.export_text()
    assert "\N{FULL BLOCK}" not in console.export_text()


def test_json_has_totals_and_drift(output: Path, tmp_path: Path) -> None:
    earlier = publish_rows(tmp_path / "earlier", [scene_row(4, {"car": 0.9}, {})])
    report = json.loads(run("audit", output, "--json", "--compare", earlier, "--top", "1"))
    assert report["totals"] == {"cleaned": 2, "unchanged": 1, "scanned": 0, "skipped": 0, "error": 1}
    assert [row["kind"] for row in report["outliers"]] == ["large", "many"]
    assert report["outliers"][0] | {"value": 0.2} == {
        "kind": "large",
        "value": 0.2,
        "uri": f"{FORMULA}.jpg",
        "image_id": 2,
        "object": None,
        "label": None,
        "verdict": None,
    }
    assert {row["what"] for row in report["drift"]["rows"]} == {"status", "failure", "reason", "class"}
    assert report["drift"]["relations"] is None
    assert "Drift; no relation scores to compare" in run("audit", output, "--compare", earlier)
    assert "Drift; relation scores moved by 0.0%" in run("audit", output, "--compare", output)


def test_csv_is_no_formula(output: Path, tmp_path: Path) -> None:
    run("audit", output, "--csv", tmp_path / "figures", "--json")
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names == {"status", "failures", "classes", "relations", "removed", "scenes", "outliers"}
    with (tmp_path / "figures" / "outliers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["uri"] == f"'{FORMULA}.jpg"
    assert rows[0]["value"].startswith("0.2")
    with (tmp_path / "figures" / "status.csv").open(newline="") as file:
        assert [row["images"] for row in csv.DictReader(file)] == ["2", "1", "0", "0", "1"]


def test_html_is_the_report_of_a_corpus_that_has_moved(output: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "4.jpg").write_bytes(encoded(gradient(90, 100)))
    run("audit", output, tmp_path / "moved", "--html", tmp_path / "page", "--json")
    data = data_of(tmp_path / "page" / "index.html")
    assert data["figures"]["status"]["cleaned"] == 2
    assert {entry["uri"] for entry in data["entries"] if entry["before"]} == {"4.jpg"}


def test_rates_of_stages_come_from_the_log(output: Path, tmp_path: Path) -> None:
    stage = {"rows": 40, "busy_s": 2.5, "images_per_s": 8.0, "at_work": None, "queue": 0}
    log = tmp_path / "run.jsonl"
    log.write_text(
        json.dumps({"event": "tick"}) + "\n" + json.dumps({"event": "end", "stages": {"fetch": stage}}) + "\n"
    )
    assert json.loads(run("audit", output, "--json", "--log", log))["stages"] == {"fetch": stage}
    (line,) = [line.split() for line in run("audit", output, "--log", log).splitlines() if line.startswith("  fetch  ")]
    assert line == ["fetch", "40", "8.0", "2.5"]
    assert stage_table({}).row_count == 0


@pytest.mark.parametrize(("text", "message"), [("{", "Expecting"), ("[1]", "no event of a run"), ("", "no event")])
def test_a_log_that_is_none_is_refused(text: str, message: str, output: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(text)
    done = CliRunner().invoke(app, ["audit", str(output), "--log", str(tmp_path / "log")])
    assert done.exit_code
    assert message in str(done.exception)


def test_the_job_reads_s3_by_its_environment(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(output, tmp_path / "s3" / "bucket" / "cleaned")
    with s3_server(tmp_path / "s3") as address:
        for name, value in s3_environment(address).items():
            monkeypatch.setenv(name, value)
        job = [sys.executable, str(ROOT / "jobs" / "audit_corpus.py"), "s3://bucket/cleaned", "--json"]
        done = subprocess.run(job, capture_output=True, text=True, check=True, timeout=120)
        assert json.loads(done.stdout) | {"output": str(output)} == json.loads(run("audit", output, "--json"))
        printed = run("export", "s3://bucket/cleaned", tmp_path / "coco", "--format", "coco")
    assert printed == f"{tmp_path / 'coco'}: 3 images\n"
