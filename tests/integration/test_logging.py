"""The log of a run on a real Ray: what fails in a worker stands in the log of the driver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from occpipe.core.config_file import load_config
from occpipe.dataset.reader import Published
from occpipe.pipeline.job import corpus_job
from occpipe.pipeline.run import run
from occpipe.pipeline.steps import STEPS, Step
from tests.helpers.scenes import encoded, gradient
from tests.helpers.stages import Failing


@pytest.mark.usefixtures("ray_cluster")
def test_a_stage_that_fails_in_a_worker_leaves_its_traceback_on_the_driver(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a b.jpg", "c.jpg"):
        (tmp_path / "in" / name).write_bytes(encoded(gradient(64, 64)))
    job = corpus_job(load_config(), str(tmp_path / "in"), str(tmp_path / "out"), scan=True)
    load, *_, close = STEPS["scan"]
    result = run(replace(job, steps=(load, Step("relate", (Failing,)), close)))
    assert result.counts.reasons == {"stage_failed": 2}
    rows = {row["uri"]: row["error"] for row in Published(str(tmp_path / "out")).rows(["uri", "error"])}
    assert sorted(rows) == ["a b.jpg", "c.jpg"]
    for uri, error in rows.items():
        assert error
        (line,) = [text for text in caplog.messages if f"failing failed on {uri}" in text]
        assert error["message"] == f"a fault of the stage {line.partition(']')[0]}]"
        assert 'raise LookupError("a fault of the stage")' in line, "the traceback"
