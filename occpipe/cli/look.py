"""The commands that show what was decided: preview before a run, report and review after it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from occpipe.cli.common import MOST_SHOWN, ConfigOption, MovedInput, SetOption, one_line
from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError
from occpipe.core.streams import messages
from occpipe.io.storage import locate, scheme_of

_OutputArgument = Annotated[str, typer.Argument(metavar="OUTPUT", help="The output of a `clean`.")]
_VerdictsOption = Annotated[
    list[Path] | None, typer.Option("--verdicts", help="A file that the review page saved; repeatable, one a rater.")
]


def preview(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Local image files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what is drawn.")] = Path("previews"),
    form: Annotated[
        Literal["png", "gif", "html"],
        typer.Option("--format", help="A picture; before and after in turn; a page with a slider."),
    ] = "png",
    config: ConfigOption = "local",
    overrides: SetOption = None,
) -> None:
    """Show for each image what would go and why: things and their scores, mask, result. No Ray, nothing else written."""
    settings = load_config(config, overrides or ())
    paths = [_local(text) for text in images]
    from occpipe.analysis.pages.preview import preview_files
    from occpipe.api import Cleaner
    from occpipe.core.resources import cores

    console = messages()
    failed = 0
    for path, note in preview_files(Cleaner(settings, workers=cores()), paths, out, form):
        failed += note is not None
        console.print(f"{path}: {note}" if note else path, highlight=False, markup=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _local(text: str) -> Path:
    """A local path as it was typed, where it needs no translation."""
    place = locate(text, "IMAGE")
    if scheme_of(place):
        raise ConfigError(f"{text}: a preview is of local files; copy some here first")
    return Path(place if text.startswith("~") or text.lower().startswith("file:") else text)


def report(
    output_uri: _OutputArgument,
    input_uri: MovedInput = None,
    page: Annotated[Path, typer.Option("--page", help="The HTML file to write.")] = Path("report.html"),
    most: Annotated[int, typer.Option(min=1, max=1000, help="How many images are shown at most.")] = MOST_SHOWN,
    verdicts: _VerdictsOption = None,
) -> None:
    """Write a self-contained page: figures of all rows, and before, after and why of the images worth a look."""
    from occpipe.analysis.pages.report import write_report

    with one_line():
        shown = write_report(output_uri, input_uri, page, most, verdicts or ())
    messages().print(f"{page}: {shown} images", highlight=False, markup=False, soft_wrap=True)


def review(
    output_uri: _OutputArgument,
    input_uri: MovedInput = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="The HTML file to write.", show_default="review.html")
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=1000, help="How many images are shown at most.")] = MOST_SHOWN,
    blind: Annotated[bool, typer.Option("--blind", help="Do not show what occpipe decided.")] = False,
    verdicts: _VerdictsOption = None,
) -> None:
    """Write a page on which people judge things and grade results; with --verdicts, print what they say together.

    The browser saves a rater's verdicts as a CSV, which `calibrate` and `apply` read.
    """
    from occpipe.analysis.agreement import rating_statistics
    from occpipe.analysis.pages.report import write_review
    from occpipe.dataset.reader import Published

    if page is not None or not verdicts:
        page = page or Path("review.html")
        with one_line():
            shown = write_review(output_uri, input_uri, page, most, blind=blind)
        messages().print(f"{page}: {shown} images", highlight=False, markup=False, soft_wrap=True)
    if verdicts:
        table = Table("what people say", "figure", "95% interval")
        with one_line():
            for line in rating_statistics(Published(output_uri), verdicts):
                table.add_row(*line.texts)
        Console().print(table)
