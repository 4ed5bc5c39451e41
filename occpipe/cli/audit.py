"""`occpipe audit` and `occpipe export`: the statistics of a published output, and its rows for other tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from occpipe.cli.common import PAGE_IMAGES, MovedInput, one_line, print_note
from occpipe.core.errors import ConfigError


def audit(
    output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="The output of a `clean`: a folder or URI.")],
    input_uri: MovedInput = None,
    compare: Annotated[str | None, typer.Option(metavar="OTHER", help="An earlier output to compare with.")] = None,
    log: Annotated[Path | None, typer.Option(help="The run's JSON log, for the rates of its stages.")] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Images worth a look, of each kind.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each table there, with all its rows.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the report there, as index.html.")] = None,
) -> None:
    """Print what was removed, where and why: counts and scores of all rows, and images worth a look.

    Only the columns that it needs are read of the published Parquet; --html reads photos, too.
    """
    from occpipe.analysis.audit import audit as audit_of
    from occpipe.analysis.drift import compare as drift_between
    from occpipe.cli.audit_tables import drift_tables, stage_table, tables, write_csv

    with one_line():
        stages = _last_stages(log) if log else {}
    current = audit_of(output_uri, top=top)
    drift = drift_between(audit_of(compare, top=top), current) if compare else None
    if csv is not None:
        print_note(f"{csv}: {len(write_csv(csv, current, drift))} tables")
    if html is not None:
        from occpipe.analysis.pages.report import write_report

        images = write_report(output_uri, input_uri, html / "index.html", PAGE_IMAGES, known_audit=current)
        print_note(f"{html / 'index.html'}: {images} images")
    if as_json:
        more = ({"drift": drift.as_dict()} if drift else {}) | ({"stages": stages} if log else {})
        sys.stdout.write(json.dumps(current.as_dict() | more, indent=1) + "\n")
        return
    console = Console()
    ascii_only = not (console.encoding or "").lower().startswith("utf")
    shown_tables = [*tables(current, ascii_only=ascii_only), *([stage_table(stages)] if stages else [])]
    shown_tables += drift_tables(drift) if drift else []
    console.print(f"{output_uri}: {current.images:,} images, {current.things:,} things", highlight=False, markup=False)
    for table in shown_tables:
        if table.row_count or table.show_header:
            console.print(table)


def export(
    output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="The output of a `clean`: a folder or URI.")],
    dest_uri: Annotated[str, typer.Argument(metavar="DEST", help="A new or empty folder, or a URI (s3://...).")],
    kind: Annotated[
        Literal["coco", "hf", "sidecar"],
        typer.Option("--format", "-f", help="COCO JSON; a folder for Hugging Face datasets; a JSON an image."),
    ],
) -> None:
    """Write the published rows for other tools. Only `hf` copies images; `coco` and `sidecar` name them."""
    from occpipe.analysis.export import export as write

    images = write(output_uri, dest_uri, kind)
    typer.echo(f"{dest_uri}: {images:,} images")


def _last_stages(path: Path) -> dict[str, dict[str, float | None]]:
    """The stages in the last event of a run in its JSON log. Raises ConfigError, ValueError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    for line in reversed(lines):
        event = json.loads(line)
        if not isinstance(event, dict) or not isinstance(stages := event.get("stages", {}), dict):
            break
        if event.get("event") != "log":
            return stages
    raise ConfigError(f"{path}: no event of a run at its end")
