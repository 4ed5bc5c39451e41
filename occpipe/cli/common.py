"""Options, progress, messages and one-line errors for all commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from occpipe.core.errors import ConfigError
from occpipe.core.streams import messages

RelationFile = Annotated[
    Path | None, typer.Option("--relations", help="A relation file (.safetensors); without it, the shipped one.")
]
ThingLists = Annotated[Path | None, typer.Option(help="Thing classes per image, TSV(.gz): image, classes.")]
StuffLists = Annotated[Path | None, typer.Option(help="Stuff classes per image, TSV(.gz): image, classes.")]

ConfigOption = Annotated[
    str, typer.Option("--config", "-c", help="A config by name (local, gpu, paper2019) or the path of a .yaml.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Override one key: --set policy.cut=0.3", metavar="KEY=VALUE")
]
MovedInput = Annotated[str | None, typer.Argument(metavar="[INPUT]", help="Where its corpus is now, if it has moved.")]

MAX_LIMIT = 10**12


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and not 1 <= limit <= MAX_LIMIT:
        raise ConfigError(f"--limit takes a number of images from 1 to {MAX_LIMIT:,}")
    return limit


LimitOption = Annotated[
    int | None, typer.Option(callback=_checked_limit, metavar="N", help="Only the first N images of the corpus.")
]

PAGE_IMAGES = 80
"""Images in a page by default: each then has 30 to 60 kB for a picture."""


@contextmanager
def one_line() -> Iterator[None]:
    """Errors in the user's files and values as one line and exit code 2."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(next(iter(str(error).splitlines()), repr(error))) from error


def print_line(line: str) -> None:
    """Print a line at once, also where the output is a file."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_note(line: str) -> None:
    """Print a line for people on standard error; a missing reader does no harm."""
    messages().print(line, highlight=False, markup=False, soft_wrap=True)
