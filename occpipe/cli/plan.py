"""`occpipe plan`: time and cost of a run beforehand, its bound, and the key of the config that moves it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from occpipe.cli.common import ConfigOption, SetOption
from occpipe.core.config import Config
from occpipe.core.config_file import load_config
from occpipe.core.config_placement import Placement, threads_on
from occpipe.core.errors import ConfigError
from occpipe.pipeline.planning.plan import UNLIMITED, Cluster, Plan, make_plan
from occpipe.pipeline.planning.rates import Rates, read_rates
from occpipe.pipeline.steps import POOLS, STAGES

SIMULATED_IMAGES = 100_000_000
SIMULATED_NODES = tuple(2**power for power in range(9))
_MIN_GAIN = 1.02  # advice that brings less than 2% is left out
_MIN_FREE = 0.9  # share of free cores at measuring, below which there is a note
_ADVICE = {
    "cores": "add nodes, or cores to a node",
    "CPUs for tasks": "lower num_cpus of load, relate and write, or add nodes",
    "GPUs": "add nodes",
    "driver": "raise ray.block_mb, or divide the shards between several drivers (--shard I/N)",
    "listing": "divide the corpus between several runs",
    "network": "add nodes, or take some with a faster network",
    "store": "divide the output between several buckets, each with a run of its own",
}


def plan(
    rates: Annotated[Path, typer.Option(help="Measured rates, as benchmarks/stages.py writes them.")],
    images: Annotated[int | None, typer.Option(min=1, help="Images of the corpus.")] = None,
    config: ConfigOption = "local",
    overrides: SetOption = None,
    nodes: Annotated[int, typer.Option(min=1, help="Equal nodes of the cluster; one, by default this machine.")] = 1,
    node: Annotated[
        str | None, typer.Option(help="A node by its card: l4, a10g, a100 or h100; --cpus and --gpus go before it.")
    ] = None,
    cpus: Annotated[float | None, typer.Option(min=1, help="Cores of a node; by default, of this machine.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs of a node; by default, what the rates had.")] = None,
    price: Annotated[float, typer.Option(min=0, help="Price of a node for an hour.")] = 0.0,
    gbps: Annotated[float | None, typer.Option(min=0.001, help="Network of a node in Gbit/s; else no bound.")] = None,
    writes: Annotated[
        float | None, typer.Option(min=1, help="Images/s that the output's store takes, 3500 for S3; else no bound.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Instead: how the bound moves from 1 to 256 such nodes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print how long a run will take and what it costs, its bound, and what is idle, from measured rates.

    Nothing is started. The bound is the slowest of the stages, each with the workers that the config allows on these
    nodes, and of what they share: cores, GPUs, the driver, the listing.
    """
    from occpipe.core.resources import cores

    measured, settings = read_rates(rates), load_config(config, overrides or ())
    here = {"cpus": cores(), "gpus": 0 if measured.machine.gpu is None else 1}
    size = here if node is None else _node_of(node)
    cluster = Cluster(nodes, cpus or size["cpus"], size["gpus"] if gpus is None else gpus, price, gbps, writes)
    if simulate:
        _simulate(measured, settings, cluster, images or SIMULATED_IMAGES, as_json=as_json)
        return
    if images is None:
        raise ConfigError("--images is missing: the number of images of the corpus")
    result = make_plan(measured, images, cluster, settings.placement, settings.ray.block_mb, settings.shard.images)
    lines = [*sentences(measured, result, settings), *notes(measured, settings, cluster)]
    if as_json:
        sys.stdout.write(json.dumps(as_dict(result) | {"notes": lines}, indent=1) + "\n")
        return
    console = Console()
    console.print(_stages_table(result))
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _node_of(name: str) -> dict[str, float]:
    text = files("occpipe").joinpath("pipeline/planning/nodes.yaml").read_text()
    nodes: dict[str, dict[str, float]] = yaml.safe_load(text)
    if name not in nodes:
        raise ConfigError(f"--node {name} is not known: {', '.join(nodes)}")
    return nodes[name]


def advice(rates: Rates, result: Plan, settings: Config) -> str:
    """The bound of a plan and the way to go faster, as a sentence."""
    name, at = result.bound.name, settings.placement
    bound = f"{name} {'are' if name[-1] == 's' else 'is'} the bound"
    if name not in STAGES:
        other = ", or end what else runs" if name == "cores" and rates.machine.free < _MIN_FREE else ""
        return f"{bound}: {_ADVICE[name]}{other}."
    key = "max_size" if name in POOLS else "max_tasks"
    freed = at.model_copy(update={name: getattr(at, name).model_copy(update={key: UNLIMITED})})
    better = make_plan(rates, result.images, result.cluster, freed, settings.ray.block_mb, settings.shard.images)
    if better.images_per_s <= result.images_per_s * _MIN_GAIN:
        return f"{bound}, and these nodes have no room for more: add nodes, or lower what a worker of {name} takes."
    workers = better.workers(name) if name in POOLS else math.ceil(better.images_per_s * result.bound.seconds)
    then = f"that gives {better.images_per_s:,.1f} images/s, bound by {better.bound.name}"
    return f"{bound}: raise placement.{name}.{key} to {workers}; {then}."


def sentences(rates: Rates, result: Plan, settings: Config) -> Iterator[str]:
    """The results of a plan: the bound, what is idle, the time, the cost."""
    yield advice(rates, result, settings)
    idle = [f"{1 - result.busy_share:.0%} of the cores"]
    if result.cluster.gpus:
        busy = next(bound for bound in result.bounds if bound.name == "GPUs").seconds * result.images_per_s
        idle.append(f"{1 - busy:.0%} of the GPUs")
    yield f"Idle at that rate: {', '.join(idle)}."
    block = f"{result.fill_s:.0f} s for a block of {result.block_rows} from end to end"
    parts = f"{result.fixed_s:.0f} s to start and end, {block}"
    if result.cluster.gpus:
        yield _cores_per_gpu(rates, result.cluster)
    yield f"Expected: {duration(result.wall_s)} ({parts}), {result.images / result.wall_s:,.1f} images/s over all."
    yield f"Removals: in {rates.removal_share:.1%} of the images, as in a sample of {rates.images}."
    if result.cluster.price:
        yield f"Cost: {result.cost:,.2f}, or {result.cost_per_million:,.2f} for a million images."


def _cores_per_gpu(rates: Rates, cluster: Cluster) -> str:
    """How many cores keep one GPU busy, by stage, and whether a node has them."""
    gpu_s = sum(rates.alone(stage).gpu_s for stage in POOLS)
    if not gpu_s:
        return "The rates were measured without a GPU, so the number of cores for one is unknown."
    cores = {stage: rates.alone(stage).cpu_s / gpu_s for stage in STAGES}
    parts = ", ".join(f"{stage} {count:.1f}" for stage, count in cores.items())
    has = cluster.cpus * rates.machine.free / cluster.gpus
    verdict = "enough" if has >= sum(cores.values()) else "cores are short"
    return f"To keep a GPU busy takes {sum(cores.values()):.1f} cores ({parts}); it has {has:.1f}: {verdict}."


def notes(rates: Rates, settings: Config, node: Cluster) -> Iterator[str]:
    """Reasons why the rates may not hold on such nodes."""
    if rates.config != settings.digest:
        yield f"Note: the rates are of another config ({rates.config}); measure them with this one ({settings.digest})."
    at = settings.placement
    if rates.machine.gpu is None and any(getattr(at, name).num_gpus for name in POOLS):
        yield "Note: the rates were measured without a GPU, so a GPU here is as fast as that machine was without."
    if rates.machine.gpu and not node.gpus:
        yield f"Note: the rates were measured on a GPU ({rates.machine.gpu}), and these nodes have none."
    threads = threads_on(int(node.cpus), at.segment.threads)
    if threads != rates.threads:
        yield f"Note: the rates were measured with {rates.threads} threads in a segmenter; here it has {threads}."
    if pinned := [name for name in STAGES if getattr(at, name).labels or getattr(at, name).resources]:
        yield f"Note: the labels and resources of {', '.join(pinned)} are not counted: the plan puts any stage on any node."
    if rates.machine.free < _MIN_FREE:
        yield f"Note: other work left {rates.machine.free:.0%} of the cores at measuring; the plan supposes the same."


def duration(seconds: float) -> str:
    """`41 s`, `12 min 5 s` or `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def as_dict(result: Plan) -> dict[str, object]:
    """A plan as JSON values; seconds, images/s and the currency of the price."""
    cluster = result.cluster
    return {
        "images": result.images,
        "nodes": cluster.nodes,
        "gpus": cluster.nodes * cluster.gpus,
        "workers": {stage: result.workers(stage) for stage in STAGES},
        "bound": result.bound.name,
        "images_per_s": result.images_per_s,
        "bounds": {b.name: b.images_per_s for b in result.bounds if math.isfinite(b.images_per_s)},
        "wall_s": result.wall_s,
        "fixed_s": result.fixed_s,
        "fill_s": result.fill_s,
        "block_rows": result.block_rows,
        "shards": result.shards,
        "cost": result.cost,
        "cost_per_million": result.cost_per_million,
    }


def scaled(settings: Config) -> Placement:
    """The placement of a config with pools and tasks that grow with the cluster."""
    at = settings.placement
    pools = {name: getattr(at, name).model_copy(update={"max_size": UNLIMITED}) for name in POOLS}
    tasks = {n: getattr(at, n).model_copy(update={"max_tasks": None}) for n in STAGES if n not in POOLS}
    return at.model_copy(update=pools | tasks)


def _simulate(rates: Rates, settings: Config, node: Cluster, images: int, *, as_json: bool) -> None:
    at = scaled(settings)
    plans = []
    for count in SIMULATED_NODES:
        cluster = Cluster(count, node.cpus, node.gpus, node.price, node.gbps, node.writes_per_s)
        plans.append(make_plan(rates, images, cluster, at, settings.ray.block_mb, settings.shard.images))
    head = "A simulation: rates of one machine, times nodes, with pools that grow with them. Nothing was run."
    lines = [head, *notes(rates, settings, node)]
    if as_json:
        sys.stdout.write(json.dumps({"simulation": [as_dict(p) for p in plans], "notes": lines}, indent=1) + "\n")
        return
    title = f"occpipe plan, simulated: {images:,} images on nodes of {_size(node)}"
    table = Table(title=title, title_justify="left")
    for name in ("nodes", "GPUs", *POOLS, "images/s", "bound", "hours", *(["cost"] if node.price else [])):
        table.add_column(name, justify="left" if name == "bound" else "right")
    for result in plans:
        count = result.cluster.nodes
        row = [f"{count}", f"{count * node.gpus:g}", *(f"{result.workers(name)}" for name in POOLS)]
        row += [f"{result.images_per_s:,.1f}", result.bound.name, f"{result.wall_s / 3600:,.1f}"]
        table.add_row(*row, *([f"{result.cost:,.0f}"] if node.price else []))
    console = Console()
    console.print(table)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _stages_table(result: Plan) -> Table:
    cluster = result.cluster
    nodes = f"{cluster.nodes} node{'s' * (cluster.nodes > 1)} of {_size(cluster)}"
    table = Table(title=f"occpipe plan: {result.images:,} images on {nodes}", title_justify="left")
    for name in ("", "where", "workers", "ms an image", "images/s", "busy"):
        table.add_column(name, justify="left" if name in ("", "where") else "right")
    for bound in result.bounds:
        if bound.name not in STAGES and bound.seconds == 0:
            continue
        where = "shared" if bound.name not in STAGES else "pool" if bound.name in POOLS else "tasks"
        table.add_row(
            bound.name,
            where,
            str(bound.workers) if bound.workers > 1 or bound.name in STAGES else "",
            f"{bound.seconds * 1000:,.2f}",
            f"{bound.images_per_s:,.1f}" if bound.seconds else "any",
            f"{result.images_per_s * bound.seconds / bound.workers:.0%}",
            style="bold" if bound is result.bound else None,
        )
        if bound.name == STAGES[-1]:
            table.add_section()
    return table


def _size(node: Cluster) -> str:
    gpus = f"{node.gpus:g} GPU{'s' * (node.gpus != 1)}" if node.gpus else "no GPU"
    return f"{node.cpus:g} core{'s' * (node.cpus != 1)} and {gpus}"
