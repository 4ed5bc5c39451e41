"""The command line. Each error that a user can act on is one line on standard error and an exit code of its own.

Exit codes: 0 done (error rows are results, and counted); 1 unexpected; 2 wrong config or arguments; 3 input or output
cannot be reached; 4 weights missing, damaged or not accepted; 5 the cluster is too small or out of reach; 6 another run
holds the output; 7 `--strict` and there are error rows; 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from occpipe import __version__, cli_learning
from occpipe.cli_common import ConfigOption, SetOption
from occpipe.cli_evaluate import evaluate_app
from occpipe.cli_jobs import jobs_app, submit
from occpipe.cli_plan import plan
from occpipe.config_file import config_names, load_config
from occpipe.errors import INTERRUPTED_EXIT_CODE, OccpipeError, StorageError

STRICT_EXIT_CODE = 7
_STOPPED = "occpipe: stopped; the same command goes on from here"

app = typer.Typer(
    help="Find what does not belong in the photos of a corpus, by context, and remove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The weights that occpipe can load.", no_args_is_help=True)
app.add_typer(models_app, name="models")

_NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="By default, those that the config needs.")
]


@app.command()
def clean(
    input_uri: Annotated[
        str, typer.Argument(metavar="INPUT", help="A folder, glob, image, s3:// or other URI, or list.")
    ],
    output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder or URI for images/ and metadata/.")],
    config: ConfigOption = "local",
    overrides: SetOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images of the corpus.")] = None,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Where OUTPUT was made with other settings or weights, make it anew.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 7 where any image ended as an error row.")] = False,
) -> None:
    """Clean a corpus: find what does not belong in each photo, remove it, and say why in Parquet.

    A second call goes on where the first one stopped.
    """
    settings = load_config(config, overrides or ())
    from occpipe.pipeline import clean_corpus
    from occpipe.progress import LiveProgress, StopRequest, summary_table
    from occpipe.summary import Tick

    console = Console(stderr=True)
    stop = StopRequest(console)
    try:
        with LiveProgress(console) as progress:

            def on_progress(tick: Tick) -> None:
                stop.begin()
                progress(tick)

            summary = clean_corpus(
                settings,
                input_uri,
                output_uri,
                limit=limit,
                new_version=new_version,
                on_progress=on_progress,
                stop=stop.event,
            )
    except KeyboardInterrupt:
        console.print(_STOPPED, highlight=False)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    console.print(summary_table(summary, output_uri))
    if summary.done_before:
        console.print(f"{summary.done_before} images were done before this run.", highlight=False)
    for reason, count in summary.manifest["reasons"].items():
        example = f", such as {summary.examples[reason]}" if reason in summary.examples else ""
        console.print(f"  {count} x {reason}{example}", highlight=False, markup=False, soft_wrap=True)
    made = summary.statuses.total()
    if made and not summary.statuses["cleaned"]:
        console.print("Nothing was found to remove; `occpipe preview IMAGE` shows why.", highlight=False)
    rate = f"{made / summary.seconds:.1f} images/s" if made else "nothing new to do"
    closing = f"{summary.seconds:.0f} s, {rate}; rows: {output_uri}/metadata/"
    console.print(closing, highlight=False, soft_wrap=True)
    if summary.stopped:
        console.print(_STOPPED, highlight=False)
        raise typer.Exit(INTERRUPTED_EXIT_CODE)
    if strict and summary.manifest["status"]["error"]:
        raise typer.Exit(STRICT_EXIT_CODE)


@app.command()
def preview(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Local image files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the PNGs.")] = Path("previews"),
    config: ConfigOption = "local",
    overrides: SetOption = None,
) -> None:
    """Draw one PNG per image: photo, segments with labels, relation scores, mask, result. No Ray, nothing else written."""
    settings = load_config(config, overrides or ())
    from occpipe.api import Cleaner
    from occpipe.preview import preview_files

    console = Console(stderr=True)
    failed = 0
    for path, note in preview_files(Cleaner(settings, workers=os.cpu_count() or 1), images, out):
        failed += note is not None
        console.print(f"{path}: {note}" if note else path, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def report(
    output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="The output of a `clean`.")],
    input_uri: Annotated[
        str | None, typer.Argument(metavar="[INPUT]", help="Where its corpus is now, if it has moved.")
    ] = None,
    page: Annotated[Path, typer.Option("--page", help="The HTML file to write.")] = Path("report.html"),
    most: Annotated[int, typer.Option(min=1, help="How many images are shown at most, cleaned ones first.")] = 100,
) -> None:
    """Write a self-contained page with before and after of each image and the reason for each removal."""
    from occpipe.report import write_report

    shown = write_report(output_uri, input_uri, page, most)
    Console(stderr=True).print(f"{page}: {shown} images", highlight=False, soft_wrap=True)


@app.command()
def config(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(config_names())}, or the path of a .yaml.")] = "local",
    overrides: SetOption = None,
) -> None:
    """Print a config with every key, as YAML."""
    import yaml

    sys.stdout.write(yaml.safe_dump(load_config(name, overrides or ()).model_dump(mode="json"), sort_keys=False))


@models_app.command("list")
def models_list(config: ConfigOption = "local", overrides: SetOption = None) -> None:
    """List the weights with their licences, and whether they are on this machine; a bucket is not asked."""
    from occpipe import weights

    settings = load_config(config, overrides or ()).weights
    table = Table("name", "kind", "licence", "source", "here")
    for weight in weights.registry().values():
        here = "yes" if weights.is_here(weight, settings) else "no"
        table.add_row(weight.name, weight.kind, weight.licence, weight.source, here)
    Console().print(table)


@models_app.command("fetch")
def models_fetch(names: _NamesArgument = None, config: ConfigOption = "local", overrides: SetOption = None) -> None:
    """Download weights from their source into `weights.dir`: those named, or all that the config needs.

    Where `weights.dir` is a bucket they are kept in this machine's cache and written to the bucket, from which nodes
    without internet copy them. A file is checked against its publisher's checksum; models of the hub have none.
    """
    from occpipe import weights

    settings = load_config(config, overrides or ())
    for weight in _weights(names, settings):
        typer.echo(f"{weight.name}: {weights.fetch(weight, settings.weights)}")


@models_app.command("verify")
def models_verify(names: _NamesArgument = None, config: ConfigOption = "local", overrides: SetOption = None) -> None:
    """Check weights on this machine, those named or all that the config needs, and print their sha256.

    A file is checked against its publisher's checksum. Models of the hub and shipped ones have no published checksum.
    """
    from occpipe import weights

    settings = load_config(config, overrides or ())
    for weight in _weights(names, settings):
        identity = weights.identity(weight, weights.locate(weight, settings.weights))
        against = "matches its publisher's checksum" if weight.has_checksum else "no published checksum to compare"
        typer.echo(f"{weight.name}: sha256 {identity['sha256']}, {identity['licence']}; {against}")


for _command in (cli_learning.explain, cli_learning.calibrate, cli_learning.train_embeddings):
    app.command()(_command)  # after the others, as the help lists them
app.add_typer(evaluate_app, name="evaluate")
app.command()(plan)
app.command()(submit)
app.add_typer(jobs_app, name="jobs")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _weights(names: list[str] | None, settings: Any) -> list[Any]:
    from occpipe import models

    return models.named(names) if names else models.needed(settings)


def _interrupt(*_: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: Ray is shut down and the output's lock released."""
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of the `occpipe` command."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except OccpipeError as error:
        Console(stderr=True).print(f"occpipe: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from None
    except OSError as error:  # the disk is full, a permission went away: the message says it, no traceback
        Console(stderr=True).print(f"occpipe: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(StorageError.exit_code) from None
