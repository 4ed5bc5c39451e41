"""The command line. Each error that a user can act on is one line on standard error, with its own exit code.

Exit codes: 0 done (error rows are results, and counted); 1 unexpected; 2 wrong config or arguments; 3 input or output
cannot be reached; 4 weights missing, damaged or not accepted; 5 the cluster is too small or out of reach; 6 another run
holds the output; 7 `--strict` and there are error rows; 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from occpipe import __version__
from occpipe.cli import audit as cli_audit
from occpipe.cli import learning as cli_learning
from occpipe.cli import look as cli_look
from occpipe.cli import study as cli_study
from occpipe.cli.common import ConfigOption, SetOption
from occpipe.cli.doctor import doctor
from occpipe.cli.evaluate import evaluate_app
from occpipe.cli.jobs import jobs_app, submit
from occpipe.cli.logs import LogFileOption, LogLevelOption, set_up
from occpipe.cli.plan import plan
from occpipe.cli.run import apply, clean, scan
from occpipe.core.config_file import config_names, config_text, load_config
from occpipe.core.errors import OccpipeError, StorageError
from occpipe.core.streams import messages, open_standard_streams

if TYPE_CHECKING:
    from occpipe.core.config import Config
    from occpipe.models.weights import ModelEntry

logger = logging.getLogger(__name__)

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

_command: Callable[..., None]

app.command("clean")(clean)
app.command("scan")(scan)
for _command in (apply, cli_look.preview, cli_look.report, cli_look.review, cli_study.study):
    app.command()(_command)
for _command in (cli_audit.audit, cli_audit.export):
    app.command()(_command)


@app.command()
def config(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(config_names())}, or the path of a .yaml.")] = "local",
    overrides: SetOption = None,
) -> None:
    """Print a config as YAML, with every key and its description."""
    sys.stdout.write(config_text(load_config(name, overrides or ())))


@models_app.command("list")
def models_list(config: ConfigOption = "local", overrides: SetOption = None) -> None:
    """List the weights with their licences, and whether they are on this machine (buckets are not looked at)."""
    from occpipe.models import weights

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
    from occpipe.models import weights

    settings = load_config(config, overrides or ())
    for weight in _weights(names, settings):
        typer.echo(f"{weight.name}: {weights.fetch(weight, settings.weights)}")


@models_app.command("verify")
def models_verify(names: _NamesArgument = None, config: ConfigOption = "local", overrides: SetOption = None) -> None:
    """Check weights on this machine, those named or all that the config needs, and print their sha256.

    A file is checked against its publisher's checksum. Models of the hub and shipped ones have no published checksum.
    """
    from occpipe.models import weights

    settings = load_config(config, overrides or ())
    for weight in _weights(names, settings):
        identity = weights.identity(weight, weights.locate(weight, settings.weights))
        against = "matches its publisher's checksum" if weight.has_checksum else "no published checksum to compare"
        typer.echo(f"{weight.name}: sha256 {identity['sha256']}, {identity['licence']}; {against}")


for _command in (cli_learning.explain, cli_learning.calibrate, cli_learning.train_embeddings):
    app.command()(_command)
app.add_typer(evaluate_app, name="evaluate")
app.command()(plan)
app.command()(doctor)
app.command()(submit)
app.add_typer(jobs_app, name="jobs")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    log_level: LogLevelOption = "warning",
    log_json: LogFileOption = None,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    set_up(log_level, log_json)


def _weights(names: list[str] | None, settings: Config) -> list[ModelEntry]:
    from occpipe.models import loading as models

    return models.named(names) if names else models.needed(settings)


def _interrupt(*_: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: Ray shuts down, and the output's lock is released."""
    raise KeyboardInterrupt


def main() -> None:
    """Parse the command line and run the command; an error is one line and an exit code."""
    open_standard_streams()
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # the terminal was closed; `nohup` ignores it
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        app()
    except OccpipeError as error:
        logger.debug("the command failed", exc_info=error)
        _fail(str(error), error.exit_code)
    except OSError as error:  # such as a full disk: the message is enough
        _fail(str(error), StorageError.exit_code)


def _fail(message: str, exit_code: int) -> NoReturn:
    messages().print(f"occpipe: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise SystemExit(exit_code) from None
