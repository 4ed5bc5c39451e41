"""The commands that make an output: `clean`, `scan` and `apply`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from occpipe.cli.common import ConfigOption, LimitOption, SetOption, one_line, print_note
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
    str, typer.Argument(metavar="INPUT", help="A folder, glob, image, tar, Parquet file, URI, or list.")
]
NewVersionOption = Annotated[
    bool, typer.Option("--new-version", help="If settings or weights of OUTPUT were others, write a new version.")
]
StrictOption = Annotated[bool, typer.Option(help="Exit with 7 if any image ended as an error row.")]
ShareOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Work on every N-th shard only, from the I-th on, beside other drivers."
    ),
]
ListOption = Annotated[
    bool,
    typer.Option("--list/--no-list", help="List the corpus for new and changed images, or go on with the listed ones."),
]

ImageColumnOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column with images of Parquet files; as corpus.image_column.")
]
PackOption = Annotated[
    str | None, typer.Option(metavar="tar:N|parquet", help="Write loose images into containers; as output.pack.")
]


def options_of(limit: int | None, share: str | None, *, new_version: bool, listing: bool) -> RunOptions:
    """The options of a run, from those of a command. Raises ConfigError for a wrong share."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", share or "0/1")
    if not match or int(match[1]) >= int(match[2]):
        raise ConfigError(f"--shard takes I/N with I below N, such as 0/4, not {share!r}")
    shares = int(match[1]), int(match[2])
    return {"limit": limit, "new_version": new_version, "share": shares, "listing": listing}


def corpus_command(name: Literal["clean_corpus", "scan_corpus"], verb: str, help_text: str) -> Callable[..., None]:
    """The command `clean` or `scan`, which differ in the function of `pipeline.run` only."""

    def command(
        input_uri: InputArgument,
        output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder or URI for images/ and metadata/.")],
        config: ConfigOption = "local",
        overrides: SetOption = None,
        limit: LimitOption = None,
        new_version: NewVersionOption = False,
        share: ShareOption = None,
        listing: ListOption = True,
        strict: StrictOption = False,
        log_json: LogFileOption = None,
        image_column: ImageColumnOption = None,
        pack: PackOption = None,
    ) -> None:
        more = {"corpus.image_column": image_column, "output.pack": pack}
        named = [f"{key}={value}" for key, value in more.items() if value is not None]
        settings = load_config(config, [*(overrides or ()), *named])
        import occpipe.pipeline.run as pipeline

        function = pipeline.clean_corpus if name == "clean_corpus" else pipeline.scan_corpus
        options = options_of(limit, share, new_version=new_version, listing=listing)

        def run(hooks: RunOptions) -> RunResult:
            return function(settings, input_uri, output_uri, **(options | hooks))

        follow(run, output_uri, strict=strict, verb=verb, log_json=log_json)

    command.__doc__ = help_text
    return command


clean = corpus_command(
    "clean_corpus",
    "cleaning",
    """Clean a corpus: find what does not belong in each photo, remove it, and write the reasons to Parquet.

    A second call goes on where the first one stopped.
    """,
)
scan = corpus_command(
    "scan_corpus",
    "scanning",
    """Find what does not belong in each photo and write the reasons to Parquet, but no image.

    `occpipe apply` goes on from there. A second call goes on where the first one stopped.
    """,
)


def apply(
    scanned: Annotated[str, typer.Argument(metavar="SCANNED", help="The output of a `scan`, `clean` or `apply`.")],
    output_uri: Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder or URI for images/ and metadata/.")],
    cut: Annotated[
        float | None, typer.Option(min=0, max=1, help="Relation below which a thing is removed; as policy.cut.")
    ] = None,
    protect: Annotated[list[str] | None, typer.Option(help="One more class to protect; repeatable.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="One more class to keep; repeatable.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="One more class to remove; repeatable.")] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(help="Human verdicts, CSV: image, object, verdict (keep or remove). They go before the policy."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="The settings; by default those of SCANNED.")
    ] = None,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would change; nothing is written.")] = False,
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
    """Decide again on the things of SCANNED, without segmenting again, and inpaint only what changed.

    A second call goes on where the first one stopped. A photo that has changed since the scan ends as an error row.
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
        _print_forecast(published, settings, review, limit, as_json=as_json)
        return
    from occpipe.pipeline.apply import apply_corpus

    options = options_of(limit, share, new_version=new_version, listing=listing)

    def run(hooks: RunOptions) -> RunResult:
        return apply_corpus(settings, published, output_uri, review, **(options | hooks))

    follow(run, output_uri, strict=strict, verb="applying", log_json=log_json)
    if review and review.unknown and limit is None:  # with a limit, others were not looked at
        first = printable(min(review.unknown))
        print_note(f"{len(review.unknown)} images of {verdicts} are not in {scanned}, the first: {first}")


def follow(
    run: Callable[[RunOptions], RunResult],
    output_uri: str,
    *,
    strict: bool,
    verb: str = "cleaning",
    log_json: str | None = None,
) -> None:
    """Run with progress, stoppable by Ctrl-C and SIGTERM; print the result, and exit with its code."""
    from occpipe.cli.progress import LiveProgress, StopRequest
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

            result = run({"on_progress": on_progress, "stop": stop.event})
            log.end(result)
    except KeyboardInterrupt:
        print_note(STOPPED)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    _print_result(result, output_uri, console)
    if result.stopped:
        print_note(STOPPED)
        raise typer.Exit(INTERRUPTED_EXIT_CODE)
    if strict and result.manifest["status"]["error"]:
        raise typer.Exit(STRICT_EXIT_CODE)


def _print_result(result: RunResult, output_uri: str, console: Console) -> None:
    from occpipe.cli.progress import result_table, stages_table
    from occpipe.dataset.corpus import describe_passed

    console.print(result_table(result, output_uri))
    if result.final:
        console.print(stages_table(result.final.utilization, title="stages"))
    if result.done_before:
        print_note(f"{result.done_before} images were done before this run.")
    for reason, count in result.manifest["reasons"].items():
        example = f", such as {result.examples[reason]}" if reason in result.examples else ""
        print_note(f"  {count} x {reason}{example}")
    if passed := describe_passed(result.manifest.get("passed_over", {})):
        print_note(f"passed over: {passed}")
    rows, cleaned, copied = result.statuses.total(), result.statuses["cleaned"], result.counts.copied
    if rows and not cleaned and not result.statuses["scanned"]:
        print_note("Nothing was removed; `occpipe preview IMAGE` shows why.")
    if result.manifest.get("command") == "apply":
        print_note(f"{cleaned - copied} inpainted, {copied} copied from an earlier run.")
    if result.final and result.final.limit:
        print_note(result.final.limit)
    rate = f"{rows / result.seconds:.1f} images/s" if rows else "nothing new to do"
    print_note(f"{result.seconds:.0f} s, {rate}; rows: {output_uri}/metadata/")


def _print_forecast(
    published: Published, settings: Config, review: Review | None, limit: int | None, *, as_json: bool
) -> None:
    from occpipe.pipeline.dry_run import Forecast, forecast
    from occpipe.pipeline.monitoring.run_result import printable

    totals = Forecast()
    for image in forecast(published, settings, review, totals, limit):
        if as_json:
            typer.echo(json.dumps(image))
    if as_json:
        typer.echo(json.dumps({"totals": totals.as_json()}))
        return
    table = Table("class", "was", "becomes", "things")
    for (label, was, verdict, reason), things in totals.things.most_common():
        table.add_row(*(escape(printable(name)) for name in (label, was)), f"{verdict}: {reason}", str(things))
    if totals.things:
        Console().print(table)
    counts = ", ".join(f"{count} {status}" for status, count in totals.statuses.items())
    typer.echo(f"{totals.changed} images would change; then {counts}")
    if totals.missed:
        first = printable(totals.missed[0])
        typer.echo(f"{len(totals.missed)} verdicts match nothing, the first: {first}", err=True)
