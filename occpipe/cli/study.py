"""The paired study of two runs: its page, and what people say together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from occpipe.cli.common import MovedInput, one_line
from occpipe.core.streams import messages


def study(
    first_uri: Annotated[str | None, typer.Argument(metavar="FIRST", help="The output of a `clean`.")] = None,
    second_uri: Annotated[str | None, typer.Argument(metavar="SECOND", help="The output of another one.")] = None,
    input_uri: MovedInput = None,
    page: Annotated[Path, typer.Option("--page", help="The HTML file to write.")] = Path("study.html"),
    most: Annotated[int, typer.Option(min=1, max=500, help="How many photos are shown at most.")] = 30,
    answers: Annotated[
        list[Path] | None, typer.Option("--answers", help="A file that the page saved; repeatable, one a rater.")
    ] = None,
) -> None:
    """Write a page on which people judge photos and the results of two runs blind; with --answers, print the scores."""
    from occpipe.analysis.pages.study import write_study
    from occpipe.analysis.study import study_says

    if (first_uri is None) != (second_uri is None) or not (first_uri or answers):
        raise typer.BadParameter("give two outputs for a page, or --answers for the scores")
    if first_uri and second_uri:
        with one_line():
            shown = write_study(first_uri, second_uri, input_uri, page, most)
        messages().print(f"{page}: {shown} photos", highlight=False, markup=False, soft_wrap=True)
    if answers:
        table = Table("what people say", "figure", "95% interval")
        with one_line():
            for line in study_says(answers):
                table.add_row(*line.texts)
        Console().print(table)
