"""The commands that show decisions: preview before a run, report and review after it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from occpipe.cli.common import PAGE_IMAGES, ConfigOption, MovedInput, SetOption, one_line, print_note
from occpipe.core.config_file import load_config
from occpipe.core.errors import ConfigError
from occpipe.io.storage import locate, scheme_of

_OutputArgument = Annotated[str, typer.Argument(metavar="OUTPUT", help="The output of a `clean`.")]
_VerdictsOption = Annotated[
    list[Path] | None, typer.Option("--verdicts", help="A file that the review page saved; repeatable, one a rater.")
]


def preview(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Local images, folders of them, or tars or Parquet files with images."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the previews.")] = Path("previews"),
    form: Annotated[
        Literal["png", "gif", "html"],
        typer.Option("--format", help="A picture; before and after in turn; a page with a slider."),
    ] = "png",
    config: ConfigOption = "local",
    overrides: SetOption = None,
) -> None:
    """Show for each image what would be removed and why: things with scores, mask, result. It needs no Ray."""
    settings = load_config(config, overrides or ())
    paths = [_local(text) for text in images]
    from occpipe.analysis.pages.preview import preview_files, unpacked
    from occpipe.api import Cleaner
    from occpipe.core.resources import cores

    failed = 0
    with TemporaryDirectory() as folder:
        paths = [unpacked(path, settings.corpus, Path(folder)) for path in paths]
        for path, note in preview_files(Cleaner(settings, workers=cores()), paths, out, form):
            failed += note is not None
            print_note(f"{path}: {note}" if note else str(path))
    if failed:
        raise typer.Exit(1)


def _local(text: str) -> Path:
    """A local path as the user typed it, where it needs no translation."""
    place = locate(text, "IMAGE")
    if scheme_of(place):
        raise ConfigError(f"{text}: a preview is of local files; copy some here first")
    return Path(place if text.startswith("~") or text.lower().startswith("file:") else text)


def report(
    output_uri: _OutputArgument,
    input_uri: MovedInput = None,
    page: Annotated[Path, typer.Option("--page", help="The HTML file to write.")] = Path("report.html"),
    most: Annotated[int, typer.Option(min=1, max=1000, help="Images on the page at most.")] = PAGE_IMAGES,
    verdicts: _VerdictsOption = None,
) -> None:
    """Write a self-contained page: statistics of all rows, and images worth a look with before, after and reasons."""
    from occpipe.analysis.pages.report import write_report

    with one_line():
        images = write_report(output_uri, input_uri, page, most, verdicts or ())
    print_note(f"{page}: {images} images")


def review(
    output_uri: _OutputArgument,
    input_uri: MovedInput = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="The HTML file to write.", show_default="review.html")
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=1000, help="Images on the page at most.")] = PAGE_IMAGES,
    blind: Annotated[bool, typer.Option("--blind", help="Do not show occpipe's verdicts.")] = False,
    verdicts: _VerdictsOption = None,
) -> None:
    """Write a page on which people judge things and grade results; with --verdicts, print statistics of their ratings.

    The browser saves a rater's verdicts as a CSV, which `calibrate` and `apply` read.
    """
    from occpipe.analysis.agreement import rating_statistics
    from occpipe.analysis.pages.report import write_review
    from occpipe.dataset.reader import Published

    if page is not None or not verdicts:
        page = page or Path("review.html")
        with one_line():
            images = write_review(output_uri, input_uri, page, most, blind=blind)
        print_note(f"{page}: {images} images")
    if verdicts:
        table = Table("ratings", "value", "95% interval")
        with one_line():
            for line in rating_statistics(Published(output_uri), verdicts):
                table.add_row(*line.texts)
        Console().print(table)
