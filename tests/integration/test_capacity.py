"""What a cluster lacks for a config, pure; and stages that are pinned to nodes, on a cluster of several kinds of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any

import pytest

from occpipe.core.config_file import load_config, overrides_of
from occpipe.core.config_placement import Placement
from occpipe.core.errors import CapacityError, ConfigError
from occpipe.pipeline.ray import capacity
from occpipe.pipeline.ray.capacity import Node, bundles_of, find_shortage, matches
from tests.integration.test_isolation import can_make_namespaces

IO, SEES, FILLS = (
    Node({"CPU": 1.0, "io": 1.0}, {"pool": "io"}),
    Node({"CPU": 2.0, "GPU": 1.0}, {"pool": "sees", "zone": "a"}),
    Node({"CPU": 2.0, "GPU": 1.0, "fast": 2.0}, {"pool": "fills"}),
)
PINNED = ("placement.segment.labels={pool: sees}", "placement.inpaint.resources={fast: 1}")
THREE = tuple(f"placement.segment.{key}=3" for key in ("min_size", "initial_size", "max_size"))


def placed(*settings: str) -> Placement:
    return load_config("local", settings).placement


def shortage(nodes: list[Node], *settings: str) -> str | None:
    return find_shortage(list(bundles_of(placed(*settings))), nodes)


@pytest.mark.parametrize(
    ("nodes", "settings", "says"),
    [
        pytest.param([IO, SEES, FILLS], PINNED, None, id="fits"),
        pytest.param([Node({"CPU": 1.25})], (), None, id="local fits on little more than a core"),
        pytest.param(
            [Node({"CPU": 1.0})],
            (),
            "the pools need at least 1.25 CPUs (segment 1 x 0.5, inpaint 1 x 0.5), the cluster has 1; "
            "add nodes, lower placement.*.num_cpus, or use --config local",
            id="no CPU is left for a task",
        ),
        pytest.param(
            [IO, SEES],
            PINNED,
            "the pools need at least 1 of fast (segment 1 x 0, inpaint 1 x 1), the cluster has 0; "
            "add nodes, lower placement.*.resources, or use --config local",
            id="no such resource",
        ),
        pytest.param(
            [IO, FILLS],
            PINNED,
            "the pools need at least 0.5 CPUs (segment 1 x 0.5) with pool=sees, the nodes there have 0; "
            "add nodes, lower placement.*.num_cpus, or use --config local",
            id="no such label",
        ),
        pytest.param(
            [IO, SEES, FILLS],
            ("placement.segment.num_gpus=2",),
            "segment needs 0.5 CPU, 2 GPU on one node, and no node has that",
            id="two GPUs, but on two nodes",
        ),
        pytest.param(
            [IO, SEES, FILLS],
            (*PINNED, "placement.segment.num_cpus=1", *THREE),
            "the pools need at least 3 CPUs (segment 3 x 1) with pool=sees, the nodes there have 2; "
            "add nodes, lower placement.*.num_cpus, or use --config local",
            id="the nodes with the label are too few",
        ),
        pytest.param(
            [SEES, FILLS],
            ("placement.load.resources={io: 0.5}", "placement.write.resources={io: 0.5}"),
            "the pools need at least 0.5 of io (segment 1 x 0, inpaint 1 x 0, a task 0.5), the cluster has 0; "
            "add nodes, lower placement.*.resources, or use --config local",
            id="tasks take turns",
        ),
    ],
)
def test_what_is_missing_is_said(nodes: list[Node], settings: tuple[str, ...], says: str | None) -> None:
    assert shortage(nodes, *settings) == says


@pytest.mark.parametrize("come", [True, False])
def test_an_autoscaling_cluster_is_asked_and_the_request_is_taken_back(
    come: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray keeps a request until there is another one, and a cluster with a request never shrinks."""
    requests: list[dict[str, Any]] = []
    nodes = [[], [], [Node({"CPU": 2.0})] if come else []]
    monkeypatch.setattr(capacity, "request_resources", lambda **request: requests.append(request))
    monkeypatch.setattr(capacity, "_nodes", lambda: nodes.pop(0) if len(nodes) > 1 else nodes[0])
    monkeypatch.setattr(capacity, "_POLL_S", 0.01)
    with contextlib.nullcontext() if come else pytest.raises(CapacityError, match="the cluster has 0"):
        capacity.check_capacity(placed(), timeout_s=0.5)
    assert [len(request["bundles"]) for request in requests] == [5, 0]


@pytest.mark.parametrize(
    ("wanted", "labels", "is_taken"),
    [
        ("a", {"zone": "a"}, True),
        ("a", {"zone": "b"}, False),
        ("a", {}, False),
        ("!a", {"zone": "a"}, False),
        ("!a", {}, True),
        ("in(a, b)", {"zone": "b"}, True),
        ("in(a,b)", {"zone": "c"}, False),
        ("!in(a, b)", {"zone": "b"}, False),
        ("!in(a, b)", {"zone": "c"}, True),
    ],
)
def test_labels_are_matched_as_ray_does(wanted: str, labels: dict[str, str], is_taken: bool) -> None:
    assert matches(labels, {"zone": wanted}) is is_taken


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("placement.segment.resources={GPU: 1}", "num_gpus"),
        ("placement.segment.resources={fast: 0}", "greater than or equal to"),
        ("placement.segment.resources={fast: 1.5}", "a share below 1 or a whole number"),
        ("placement.segment.resources={'a b': 1}", "pattern"),
        ("placement.relate.labels={zone: 'a b'}", "pattern"),
        ("placement.relate.labels={zone: 'in(a'}", "pattern"),
        ("placement.relate.labels={'-x': a}", "pattern"),
        ("placement.relate.labels=[a]", "placement.relate.labels"),
    ],
)
def test_what_ray_would_not_take_is_refused(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config("local", [setting])


def test_pins_travel_with_a_submitted_config() -> None:
    settings = [*PINNED, "placement.write.labels={ray.io/market-type: '!spot', zone: 'in(a, b)'}"]
    config = load_config("gpu", settings)
    assert load_config("local", overrides_of(config)) == config
    assert config.digest == load_config("gpu").digest, "where a stage runs decides nothing about pixels"


def test_ray_is_told() -> None:
    options = placed(*PINNED).segment.ray_options()
    assert options == {"num_cpus": 0.5, "num_gpus": 0, "resources": None, "label_selector": {"pool": "sees"}}
    assert placed(*PINNED).relate.ray_options() == {"num_cpus": 0.25, "resources": None, "label_selector": None}


@pytest.mark.slow
@pytest.mark.skipif(not can_make_namespaces(), reason="network namespaces are not allowed here")
def test_two_runs_share_a_cluster_and_their_stages_stay_where_they_are_pinned() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.placed"], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ends"] == {"a": 0, "b": 0}
    assert told["survived"] == {"a": True, "b": True}, "each image once in each output"
    assert told["seen"] == {"segment": ["sees"], "inpaint": ["fills"]}
    assert told["at_once"] == {"segment": 2, "inpaint": 2}, "an actor of each run"
    assert told["lacking"] == (
        "the tasks need at least 0.25 CPUs (a task 0.25) with pool=disks, the nodes there have 0; "
        "add nodes, lower placement.*.num_cpus, or use --config local"
    )
