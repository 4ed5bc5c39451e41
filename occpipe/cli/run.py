"""The commands that make an output, `clean`, `scan` and `apply`: what they share, and the last two."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from occpipe.cli.common import ConfigOption, LimitOption, SetOption, one_line
from occpipe.cli.logs import LogFileOption, add_log_file
from occpipe.core.config_file import load_config
from occpipe.core.errors import INTERRUPTED_EXIT_CODE, ConfigError
from occpipe.core.streams import messages

if TYPE_CHECKING:
    from occpipe.core.config import Config
    from occpipe.dataset.reader import Published
    from occpipe.dataset.verdicts import Review
    from occpipe.pipeline.job import RunOptions
    from occpipe.pipeline.monitoring.run_result import ProgressSnapshot, RunResult

STRICT_EXIT_CODE = 7
STOPPED = "occpipe: stopped; the same command goes on from here"

InputArgument = Annotated[
    str, typer.Argument(metavar="INPUT", help="A folder, glob, image, s3:// or other URI, or list.")
]
NewVersionOption = Annotated[
    bool, typer.Option("--new-version", help="Where OUTPUT was made with other settings or weights, make it anew.")
]
StrictOption = Annotated[bool, typer.Option(help="Exit with 7 where any image ended as an error row.")]
ShareOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Work on every N-th shard only, from the I-th on, beside other drivers."
    ),
]
ListOption = Annotated[
    bool,
    typer.Option("--list/--no-list", help="List the corpus for new and changed images, or go on with those known."),
]


def options_of(limit: int | None, share: str | None, *, new_version: bool, listing: bool) -> RunOptions:
    """What a run is told, from the options of a command; raises ConfigError for a wrong share."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", share or "0/1")
    if not found or int(found[1]) >= int(found[2]):
        raise ConfigError(f"--shard takes I/N with I below N, such as 0/4, not {share!r}")
    shares = int(found[1]), int(found[2])
    return {"limit": limit, "new_version": new_version, "share": shares, "listing": listing}


def scan(
    input_uri: InputArgument,
    output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder or URI for metadata/.")],
    config: ConfigOption = "local",
    overrides: SetOption = None,
    limit: LimitOption = None,
    new_version: NewVersionOption = False,
    share: ShareOption = None,
    listing: ListOption = True,
    strict: StrictOption = False,
    log_json: LogFileOption = None,
) -> None:
    """Find what does not belong in each photo and say why in Parquet, as `clean` does, and write no image.

    `occpipe apply` goes on from there. A second call goes on where the first one stopped.
    """
    settings = load_config(config, overrides or ())
    from occpipe.pipeline.run import scan_corpus

    options = options_of(limit, share, new_version=new_version, listing=listing)

    def run(hooks: RunOptions) -> RunResult:
        return scan_corpus(settings, input_uri, output_uri, **(options | hooks))

    follow(run, output_uri, strict=strict, verb="scanning", log_json=log_json)


def apply(
    scanned: Annotated[str, typer.Argument(metavar="SCANNED", help="The output of a `scan`, `clean` or `apply`.")],
    output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder or URI for images/ and metadata/.")],
    cut: Annotated[
        float | None, typer.Option(min=0, max=1, help="Relation below which a thing goes; as policy.cut.")
    ] = None,
    protect: Annotated[list[str] | None, typer.Option(help="A class to protect, too; repeatable.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A class to keep, too; repeatable.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A class to remove, too; repeatable.")] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(help="Human verdicts, CSV: image, object, verdict (keep or remove). They beat the policy."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="Settings to decide and fill with; by default SCANNED's.")
    ] = None,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; nothing is written.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="With --dry-run: a line of JSON for each image that would change, then totals."),
    ] = False,
    limit: LimitOption = None,
    new_version: NewVersionOption = False,
    share: ShareOption = None,
    listing: ListOption = True,
    strict: StrictOption = False,
    log_json: LogFileOption = None,
) -> None:
    """Decide again on what SCANNED has seen, without segmenting again, and inpaint only what changed.

    A second call goes on where the first one stopped. A photo that is not the one that was scanned ends as an error row.
    """
    from occpipe.dataset.reader import Published
    from occpipe.dataset.verdicts import Review
    from occpipe.pipeline.monitoring.run_result import printable
    from occpipe.pipeline.scan_settings import settings_for

    if as_json and not dry_run:
        raise ConfigError("--json needs --dry-run")
    published = Published(scanned)
    overrides = [*(overrides or ()), *([] if cut is None else [f"policy.cut={cut}"])]
    more = {"keep": keep or (), "protect": protect or (), "remove": remove or ()}
    settings = settings_for(published, config, overrides, more)
    with one_line():
        review = None if verdicts is None else Review.read(verdicts)
    if dry_run:
        _foresee(published, settings, review, limit, as_json=as_json)
        return
    from occpipe.pipeline.apply import apply_corpus

    options = options_of(limit, share, new_version=new_version, listing=listing)

    def run(hooks: RunOptions) -> RunResult:
        return apply_corpus(settings, published, output_uri, review, **(options | hooks))

    follow(run, output_uri, strict=strict, verb="applying", log_json=log_json)
    if review and review.unknown and limit is None:  # of which others were not looked at
        first = printable(min(review.unknown))
        shown = f"{len(review.unknown)} images of {verdicts} are not in {scanned}, the first: {first}"
        messages().print(shown, highlight=False, markup=False, soft_wrap=True)


def follow(
    run: Callable[[RunOptions], RunResult],
    output_uri: str,
    *,
    strict: bool,
    verb: str = "cleaning",
    log_json: str | None = None,
) -> None:
    """Run with progress, stoppable by Ctrl-C and SIGTERM; say what was done, and exit as that asks for."""
    from occpipe.cli.progress import LiveProgress, StopRequest, stages_table, summary_table
    from occpipe.dataset.corpus import describe_passed
    from occpipe.pipeline.monitoring.run_log import RunLog

    add_log_file(log_json)
    console = messages()
    stop = StopRequest(console)
    try:
        with RunLog() as log, LiveProgress(console, verb) as progress:

            def on_progress(snapshot: ProgressSnapshot) -> None:
                stop.begin()
                log(snapshot)
                progress(snapshot)

            summary = run({"on_progress": on_progress, "stop": stop.event})
            log.end(summary)
    except KeyboardInterrupt:
        console.print(STOPPED, highlight=False)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    console.print(summary_table(summary, output_uri))
    if summary.final:
        console.print(stages_table(summary.final.utilization, title="stages"))
    if summary.done_before:
        console.print(f"{summary.done_before} images were done before this run.", highlight=False)
    for reason, count in summary.manifest["reasons"].items():
        example = f", such as {summary.examples[reason]}" if reason in summary.examples else ""
        console.print(f"  {count} x {reason}{example}", highlight=False, markup=False, soft_wrap=True)
    if passed := describe_passed(summary.manifest.get("passed_over", {})):
        console.print(f"passed over: {passed}", highlight=False, markup=False, soft_wrap=True)
    made, cleaned, copied = summary.statuses.total(), summary.statuses["cleaned"], summary.counts.copied
    if made and not cleaned and not summary.statuses["scanned"]:
        console.print("Nothing was found to remove; `occpipe preview IMAGE` shows why.", highlight=False)
    if summary.manifest.get("command") == "apply":
        console.print(f"{cleaned - copied} inpainted, {copied} copied from an earlier run.", highlight=False)
    if summary.final and summary.final.limit:
        console.print(summary.final.limit, highlight=False, markup=False, soft_wrap=True)
    rate = f"{made / summary.seconds:.1f} images/s" if made else "nothing new to do"
    closing = f"{summary.seconds:.0f} s, {rate}; rows: {output_uri}/metadata/"
    console.print(closing, highlight=False, soft_wrap=True)
    if summary.stopped:
        console.print(STOPPED, highlight=False)
        raise typer.Exit(INTERRUPTED_EXIT_CODE)
    if strict and summary.manifest["status"]["error"]:
        raise typer.Exit(STRICT_EXIT_CODE)


def _foresee(
    published: Published, settings: Config, review: Review | None, limit: int | None, *, as_json: bool
) -> None:
    from occpipe.pipeline.dry_run import Forecast, forecast
    from occpipe.pipeline.monitoring.run_result import printable

    found = Forecast()
    for image in forecast(published, settings, review, found, limit):
        if as_json:
            typer.echo(json.dumps(image))
    if as_json:
        typer.echo(json.dumps({"totals": found.as_json()}))
        return
    table = Table("class", "was", "becomes", "things")
    for (label, was, verdict, reason), things in found.things.most_common():
        table.add_row(*(escape(printable(name)) for name in (label, was)), f"{verdict}: {reason}", str(things))
    if found.things:
        Console().print(table)
    counts = ", ".join(f"{count} {status}" for status, count in found.statuses.items())
    typer.echo(f"{found.changed} images would change; then {counts}")
    if found.missed:
        first = printable(found.missed[0])
        typer.echo(f"{len(found.missed)} verdicts match nothing, the first: {first}", err=True)
