"""`occpipe submit` and `occpipe jobs`: runs on a Ray cluster, from any machine that can reach its dashboard."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from occpipe.cli.common import ConfigOption, LimitOption, SetOption, print_line, print_note
from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError

if TYPE_CHECKING:
    from occpipe.pipeline.ray.jobs import Jobs  # whose import of Ray takes seconds

_WIDE = 240  # columns, for a table that a program reads

jobs_app = typer.Typer(help="Runs that were submitted to a Ray cluster.", no_args_is_help=True)

AddressOption = Annotated[
    str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, such as http://127.0.0.1:8265.")
]
HeaderOption = Annotated[
    list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Sent with each request; repeatable.")
]
CaOption = Annotated[str | None, typer.Option("--ca", help="A file of certificates to trust for https://.")]
_JobArgument = Annotated[str, typer.Argument(metavar="ID", help="As `occpipe jobs list` shows it.")]


def submit(
    input_uri: Annotated[
        str, typer.Argument(metavar="INPUT", help="As for `clean`; the nodes of the cluster read it.")
    ],
    output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="As for `clean`; all nodes write to it.")],
    address: AddressOption,
    config: ConfigOption = "gpu",
    overrides: SetOption = None,
    limit: LimitOption = None,
    new_version: Annotated[bool, typer.Option("--new-version", help="As for `clean`.")] = False,
    strict: Annotated[bool, typer.Option(help="The job fails where any image ended as an error row.")] = False,
    log_json: Annotated[
        str | None, typer.Option("--log-json", help="As for `clean`; - for the job's log, or a path of the head node.")
    ] = None,
    name: Annotated[str | None, typer.Option("--id", help="The job's id; by default it comes from OUTPUT.")] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="A variable for the job, by default with its value here; no secrets.",
        ),
    ] = None,
    working_dir: Annotated[
        str | None, typer.Option(help="A folder to upload, such as a checkout; the job runs in it.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="A container image that the job runs in.")] = None,
    runtime_env: Annotated[str | None, typer.Option(help="More of Ray's runtime environment, as JSON.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, or leave it alone.")
    ] = True,
    header: HeaderOption = None,
    ca: CaOption = None,
) -> None:
    """Submit a run to a Ray cluster; the same command goes on where an earlier job for OUTPUT stopped."""
    settings = load_config(config, overrides or ())
    options = ["--limit", str(limit)] if limit else []
    options += ["--new-version"] * new_version + ["--strict"] * strict
    if log_json:
        if log_json != "-" and not log_json.startswith("/"):
            raise ConfigError(f"--log-json {log_json!r} is a path of this machine; give - or an absolute path")
        options += ["--log-json", log_json]
    environment = environment_of(runtime_env, env or (), working_dir, image)
    jobs = _jobs(address, header, ca)
    job_id = jobs.submit(settings, input_uri, output_uri, name=name, options=options, runtime_env=environment)
    print_note(f"submitted as {job_id}")
    if wait:
        _follow(jobs, job_id)
    else:
        print_note(f"`occpipe jobs logs {job_id} --address {address}` follows it")


@jobs_app.command("list")
def list_jobs(address: AddressOption, header: HeaderOption = None, ca: CaOption = None) -> None:
    """List the runs on a cluster, the latest last."""
    table = Table("id", "status", "started", "ended", "output")
    for job in _jobs(address, header, ca).list():
        times = [time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "" for time in (job.started, job.ended)]
        table.add_row(escape(job.id), str(job.status), *times, escape(job.output))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


@jobs_app.command("logs")
def logs(job_id: _JobArgument, address: AddressOption, header: HeaderOption = None, ca: CaOption = None) -> None:
    """Print the log of a run until it ends; the exit code is the run's."""
    _follow(_jobs(address, header, ca), job_id)


@jobs_app.command("stop")
def stop(
    job_id: _JobArgument,
    address: AddressOption,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the begun blocks are published.")] = True,
    header: HeaderOption = None,
    ca: CaOption = None,
) -> None:
    """Stop a run after the blocks that it has begun; `occpipe submit` goes on from there."""
    job = _jobs(address, header, ca).stop(job_id, wait=wait)
    print_line(f"{job.id}: {job.status}")


def _jobs(address: str, header: list[str] | None, ca: str | None) -> Jobs:
    from occpipe.pipeline.ray.jobs import Jobs

    pairs = [text.partition("=") for text in header or ()]
    if not all(name and equals for name, equals, _ in pairs):
        raise ConfigError("--header takes NAME=VALUE")
    return Jobs(address, headers={name: value for name, _, value in pairs}, ca=ca)


def _follow(jobs: Jobs, job_id: str) -> None:
    """Print a job's output until it ends, and exit with its code; Ctrl-C leaves it running."""
    from occpipe.pipeline.ray.jobs import exit_code

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        job = jobs.follow(job_id, write)
    except KeyboardInterrupt:
        print_note(f"{job_id} goes on; `occpipe jobs stop {job_id} --address {jobs.address}` stops it")
        raise typer.Exit(0) from None
    print_line(f"{job.id}: {job.status}{f', {job.message}' if job.exit_code else ''}")
    raise typer.Exit(exit_code(job))


def environment_of(
    options: str | None, env: Sequence[str], working_dir: str | None, image: str | None
) -> dict[str, object]:
    """Ray's runtime environment of a job, from the options. Raises ConfigError where they are wrong."""
    try:
        runtime_env = json.loads(options or "{}")
    except ValueError as error:
        raise ConfigError(f"--runtime-env is not JSON: {error}") from None
    if not isinstance(runtime_env, dict):
        raise ConfigError("--runtime-env takes a JSON object")
    variables = runtime_env.get("env_vars", {})
    if not isinstance(variables, dict):
        raise ConfigError("--runtime-env: env_vars is a JSON object, too")
    for text in env:
        name, equals, value = text.partition("=")
        if not equals and name not in os.environ:
            raise ConfigError(f"--env {name}: not set here; give {name}=VALUE")
        variables[name] = value if equals else os.environ[name]
    runtime_env["env_vars"] = variables
    if working_dir and image:
        raise ConfigError("--working-dir and --image exclude each other: Ray takes one of them")
    if working_dir:
        runtime_env["working_dir"] = working_dir
    if image:
        runtime_env["image_uri"] = image
    return runtime_env
