"""`occpipe doctor`: what is well, and what to do, before a run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from occpipe.cli.common import ConfigOption, SetOption
from occpipe.core.config_file import load_config


def doctor(
    input_uri: Annotated[str, typer.Argument(metavar="INPUT", help="As for `clean`.")],
    output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="As for `clean`.")],
    config: ConfigOption = "local",
    overrides: SetOption = None,
) -> None:
    """Look whether a run would begin: input, output, credentials, Ray, GPU, weights, disk. Nothing is begun.

    The exit code is that with which the run would end, or 0.
    """
    settings = load_config(config, overrides or ())
    from occpipe.pipeline.doctor import examine
    from occpipe.pipeline.monitoring.run_result import printable

    table, code = Table("", "looked at"), 0
    for title in ("found", "what to do"):
        table.add_column(title, overflow="fold")
    for check in examine(settings, input_uri, output_uri):
        mark = "[red]fails[/]" if check.error else "[yellow]look[/]" if check.advice else "[green]well[/]"
        table.add_row(mark, check.name, escape(printable(check.result)), escape(check.advice))
        code = code or (check.error.exit_code if check.error else 0)
    Console().print(table)
    raise typer.Exit(code)
