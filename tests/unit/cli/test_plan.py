"""`occpipe plan` as a command, and the files of rates that it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from occpipe.cli.main import app
from occpipe.core.errors import ConfigError
from occpipe.pipeline.planning.rates import read_rates
from tests.unit.pipeline.test_plan import MACHINE, one, rates


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rates.json"
    path.write_text(rates().model_dump_json())
    return path


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["plan", *map(str, arguments)], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_a_table_and_sentences(file: Path) -> None:
    printed = run("--rates", file, "--images", 640, "--cpus", 4, "--price", 3.6)
    parts = ("640 images on 1 node of 4 cores and no GPU", "raise placement.segment.max_size to 2", "Cost: 0.08")
    assert all(part in printed for part in parts)
    assert printed.count("Note") == 1, "of the threads"


def test_the_command_prints_json(file: Path) -> None:
    settings = ("-s", "placement.segment.max_size=2", "-s", "ray.block_mb=16", "-s", "shard.images=100")
    planned = json.loads(run("--rates", file, "--images", 640, "--cpus", 4, "--json", *settings))
    assert (planned["bound"], planned["workers"]["segment"]) == ("cores", 2)
    assert (planned["block_rows"], planned["shards"]) == (7, 7)
    assert planned["images_per_s"] == pytest.approx(20)
    assert "Infinity" not in json.dumps(planned)


def test_a_node_by_its_card_and_the_cores_that_feed_it(tmp_path: Path) -> None:
    """A GPU that takes 10 ms a photo, and 70 ms of cores beside it, wants seven cores."""
    path = tmp_path / "rates.json"
    costs = {"load": one(0.04), "segment": one(0.02, gpu=0.01), "relate": one(0), "inpaint": one(0), "write": one(0.01)}
    path.write_text(rates(machine=MACHINE | {"gpu": "a GPU"}, **costs).model_dump_json())
    plan = ("--rates", path, "--images", 100, "--config", "gpu", "--node")
    assert "takes 7.0 cores (load 4.0, segment 2.0, relate 0.0, inpaint 0.0, write 1.0); it has 8.0: enough" in run(
        *plan, "l4"
    )
    assert "100 images on 1 node of 24 cores and 1 GPU" in run(*plan, "h100")
    assert "it has 6.0: cores are short" in run(*plan, "l4", "--cpus", 6)
    with pytest.raises(ConfigError, match="--node t4 is not known: l4, a10g, a100, h100"):
        run(*plan, "t4")


def test_a_simulation_says_that_it_is_one_and_shows_the_bound_move(file: Path) -> None:
    command = ("--rates", file, "--cpus", 16, "--writes", 1000, "--simulate")
    assert "Nothing was run." in run(*command)
    runs = json.loads(run(*command, "--json"))["simulation"]
    assert [one["nodes"] for one in runs] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert (runs[0]["bound"], runs[-1]["bound"]) == ("cores", "store")
    assert runs[-1]["images_per_s"] == pytest.approx(1000 / (1 + 1 / 64)), "a part for each block of 64"


def test_the_command_says_where_the_rates_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(rates(config="0123", machine=MACHINE | {"free": 0.6}).model_dump_json())
    printed = run("--rates", path, "--images", 100, "--cpus", 16, "--gpus", 1, "--config", "gpu")
    assert all(part in printed for part in ("another config (0123)", "measured without a GPU", "left 60% of the cores"))
    path.write_text(rates(machine=MACHINE | {"gpu": "a GPU"}).model_dump_json())
    plan = ("--rates", path, "--images", 100, "--cpus")
    printed = run(*plan, 16, "--gpus", 0, "--set", "placement.segment.threads=3")
    assert all(part in printed for part in ("these nodes have none", "with 2 threads in a segmenter; here it has 3"))
    printed = run(*plan, 16, "--set", "placement.write.labels={disk: fast}")
    assert "with 2 threads in a segmenter; here it has 16" in printed, "all cores, by default"
    assert "labels and resources of write are not counted" in printed
    assert "threads in a segmenter" not in run(*plan, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no file of rates: Invalid JSON"),
        ('{"version": 1}', "is no file of rates: version: Input should be 2"),
        (rates().model_dump_json()[:-1] + ',"speed":1}', "speed: Extra inputs are not permitted"),
        (
            rates().model_dump_json().replace('"removal_share":0.1', '"removal_share":1.1'),
            "removal_share: Input should",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        read_rates(path)
    assert message in str(caught.value)


def test_what_is_missing_is_said(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_rates(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="--images is missing"):
        run("--rates", file)
