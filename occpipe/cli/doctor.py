"""`occpipe doctor`: checks before a run, and advice."""

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
    """Check whether a run can start: input, output, credentials, Ray, GPU, weights, disk. Nothing is started.

    The exit code is that of the first failed check, or 0.
    """
    settings = load_config(config, overrides or ())
    from occpipe.pipeline.doctor import examine
    from occpipe.pipeline.monitoring.run_result import printable

    table, code = Table("", "check"), 0
    for title in ("result", "advice"):
        table.add_column(title, overflow="fold")
    for check in examine(settings, input_uri, output_uri):
        mark = "[red]failed[/]" if check.error else "[yellow]warning[/]" if check.advice else "[green]ok[/]"
        table.add_row(mark, check.name, escape(printable(check.result)), escape(check.advice))
        code = code or (check.error.exit_code if check.error else 0)
    Console().print(table)
    raise typer.Exit(code)
