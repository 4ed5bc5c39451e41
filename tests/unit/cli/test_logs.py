"""Where log records go: standard error, and files of JSON lines."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from occpipe.cli.logs import JsonFormatter, add_log_file, set_up
from occpipe.core.errors import StorageError
from occpipe.pipeline.monitoring.run_log import INTERVAL_S, RunLog
from occpipe.pipeline.monitoring.run_result import ProgressSnapshot, RunCounts, RunResult

logger = logging.getLogger("occpipe.test")


@pytest.fixture(autouse=True)
def _no_handlers_afterwards() -> Iterator[None]:
    yield
    set_up("warning")
    package = logging.getLogger("occpipe")
    package.removeHandler(*package.handlers)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_level_decides_what_standard_error_shows(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("warning")
    logger.info("fine")
    logger.warning("odd: %s", "[red]")
    set_up("debug")
    logger.debug("small")
    assert capsys.readouterr().err == "WARNING occpipe.test: odd: [red]\nDEBUG occpipe.test: small\n"


def test_an_event_of_a_run_is_not_shown_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info")
    RunLog()(ProgressSnapshot(Counter(), 1, 0.0))
    assert capsys.readouterr().err == ""


def test_a_record_is_a_line_of_json_with_its_fields_and_traceback(tmp_path: Path) -> None:
    set_up("error", str(tmp_path / "log.jsonl"))
    logger.debug("left out")
    try:
        raise ValueError("a\nb")
    except ValueError:
        logger.exception("%d rows", 2, extra={"uri": "a.jpg", "path": tmp_path})
    (line,) = lines_of(tmp_path / "log.jsonl")
    assert {key: line[key] for key in ("version", "event", "level", "logger", "message", "uri", "path")} == {
        "version": 1, "event": "log", "level": "error", "logger": "occpipe.test", "message": "2 rows",
        "uri": "a.jpg", "path": str(tmp_path),
    }  # fmt: skip
    assert line["traceback"].startswith("Traceback (most recent call last):")
    assert line["traceback"].endswith("ValueError: a\nb")


def test_a_log_on_a_full_disk_says_so_once_and_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("warning", "/dev/full")
    with RunLog() as log:
        log(ProgressSnapshot(Counter(), 1, 0.0))
        log.end(RunResult(RunCounts(), 0, 1.0, {"images": 0, "status": {}, "reasons": {}, "removed": {}}))
    assert capsys.readouterr().err == "/dev/full: [Errno 28] No space left on device; no more of this log\n"


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        add_log_file(str(tmp_path / "no" / "log.jsonl"))


def test_a_run_that_fails_has_a_last_line(tmp_path: Path) -> None:
    set_up("warning", str(tmp_path / "log.jsonl"))

    def fail() -> None:
        with RunLog() as log:
            log(ProgressSnapshot(Counter(unchanged=3), 9, 2.0))
            log(ProgressSnapshot(Counter(unchanged=4), 9, 2.1))
            raise ValueError("broken\nto pieces")

    with pytest.raises(ValueError, match="broken"):
        fail()
    first, last = lines_of(tmp_path / "log.jsonl")
    assert INTERVAL_S > 1
    assert (first["event"], first["done"], first["message"]) == ("tick", 3, "3 of 9 images")
    assert (last["event"], last["done"], last["error"]) == ("failed", 3, "broken to pieces")
    assert last["traceback"].endswith("ValueError: broken\nto pieces")


def test_tests_and_programs_may_set_logging_up_again(tmp_path: Path) -> None:
    for name in ("first", "second"):
        set_up("warning", str(tmp_path / name))
        logger.info(name)
    assert [lines_of(tmp_path / name)[0]["message"] for name in ("first", "second")] == ["first", "second"]
    assert len(lines_of(tmp_path / "first")) == 1


def test_fields_that_ray_adds_are_left_out() -> None:
    record = logging.makeLogRecord({"name": "occpipe", "msg": "seen", "_ray_timestamp_ns": 1, "uri": "a.jpg"})
    fields = json.loads(JsonFormatter().format(record))
    assert fields["uri"] == "a.jpg"
    assert "_ray_timestamp_ns" not in fields
