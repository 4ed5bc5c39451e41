"""The steps of the three commands, as data."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from occpipe.core.config import Config
from occpipe.core.config_placement import Placement
from occpipe.core.schemas import MANIFEST, PIPELINE, PUBLISHED
from occpipe.dataset.versions import Command
from occpipe.pipeline.job import corpus_job
from occpipe.pipeline.planning.rates import Rates
from occpipe.pipeline.steps import POOLS, STAGES, STEPS, parts_of
from occpipe.pipeline.units import PLACE
from occpipe.stages.stage import check_columns
from tests.helpers.scenes import encoded, gradient

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("command", "file"), [("clean", MANIFEST), ("scan", MANIFEST), ("apply", PUBLISHED)])
def test_stages_read_what_was_written(command: Command, file: object) -> None:
    stages = [stage for step in STEPS[command] for stage in step.stages]
    check_columns(stages, (*(PUBLISHED if command == "apply" else MANIFEST).names, *PLACE))
    assert all({*stage.READS, *stage.WRITES, *stage.DROPS} <= PIPELINE.keys() for stage in stages)


def test_each_step_has_a_placement_and_each_command_keeps_their_order() -> None:
    assert (*Placement.model_fields,) == STAGES
    assert POOLS == ("segment", "inpaint")
    for steps in STEPS.values():
        names = [step.name for step in steps]
        assert names == [name for name in STAGES if name in names]


def test_docs_and_rates_name_the_same_steps() -> None:
    flow = (ROOT / "ARCHITECTURE.md").read_text().partition("## The flow")[2].split("```")[1]
    assert re.findall(r"^(\w+) ", flow, re.M) == ["list", *STAGES, "commit", "sums"]
    assert {*STAGES} <= Rates.model_fields.keys()
    assert parts_of(STEPS["clean"]) == ("segmenter", "relations", "inpainter")


def test_a_job_whose_stage_lacks_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(gradient(64, 64)))
    job = corpus_job(Config(), f"{tmp_path}/a.jpg", str(tmp_path / "out"))
    assert job.steps == STEPS["clean"]
    with pytest.raises(ValueError, match=r"Relate reads \['segments', 'stuff'\], and no stage before it writes that"):
        replace(job, steps=tuple(step for step in job.steps if step.name != "segment"))
