"""The tables of an audit for people, readable at 80 columns, and as CSV. Class names may come from strangers."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from occpipe.analysis.audit import Audit
from occpipe.analysis.drift import Drift
from occpipe.core.types import Verdict
from occpipe.pipeline.monitoring.run_result import printable

MAX_ROWS = 12
"""Rows of a table on the terminal; JSON and CSV have all of them."""
SURE_Z = 3.0
_BAR = 24
_SCORE_STEPS = 10
_AREAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_FORMULA = tuple("=+-@\t\r")
_OUTLIERS: dict[str, tuple[str, Callable[[float], str]]] = {
    "large": ("largest removals", lambda value: f"{value:.1%} filled"),
    "near": ("nearest to the cut", lambda value: f"{value:+.4f}"),
    "many": ("most things", lambda value: f"{value:.0f} things"),
}


def tables(audit: Audit, *, ascii_only: bool = False) -> Iterator[Table]:
    """The tables of an audit, the most general one first."""
    bar = "#" if ascii_only else "\N{FULL BLOCK}"
    yield _table("Images", ("status", "images", "share", "filled, mean"), _statuses(audit))
    yield _table("Not cleaned", ("status", "reason", "stage", "error", "images"), audit.failures)
    yield _table("Removed", ("class", "reason", "things", "of class", "area", "relation"), _removed(audit))
    yield _table("Kept", ("reason", "things", "of things"), _kept(audit))
    title = "Relation scores" + ("" if audit.cut is None else f", cut {audit.cut:.3f}")
    yield _table(title, ("relation", "kept", "removed", "by relation"), _scores(audit, bar))
    yield _table("Filled share of an image", ("share", "images", ""), _areas(audit, bar))
    where = ((row.label, row.stuff, row.images, f"{row.share:.0%}") for row in audit.scenes)
    yield _table("Where", ("removed", "stuff of the scene", "images", "of its removals"), where)
    for kind, (title, shown) in _OUTLIERS.items():
        rows = [(shown(row.value), row.uri, row.verdict, row.label) for row in audit.outliers if row.kind == kind]
        columns = ("", "image", "verdict", "class") if kind == "near" else ("", "image")
        yield _table(f"Worth a look: {title}", columns, [row[: len(columns)] for row in rows])


def drift_tables(drift: Drift) -> Iterator[Table]:
    """The sure differences between two outputs, and those of their settings."""
    settings = ((key, str(was), str(now)) for key, (was, now) in drift.settings.items())
    yield _table("Settings that differ", ("key", "before", "now"), settings)
    sure = [row for row in drift.rows if abs(row.z) >= SURE_Z]
    moved = (
        "no relation scores to compare"
        if drift.relations is None
        else f"relation scores moved by {drift.relations:.1%}"
    )
    title = f"Drift; {moved}" + ("" if sure else "; no share moved surely")
    rows = ((row.what, row.name, f"{row.before:.2%}", f"{row.after:.2%}", f"{row.z:+.1f}") for row in sure)
    yield _table(title, ("share of", "name", "before", "now", "z"), rows, empty=True)


def stage_table(stages: Mapping[str, Mapping[str, float | None]]) -> Table:
    """The stages of a run from the last event of its log; docs/watching.md has the fields."""
    rows = (
        (name, stage.get("rows"), *(_number(stage.get(key)) for key in ("images_per_s", "at_work", "busy_s")))
        for name, stage in stages.items()
    )
    return _table("Stages", ("stage", "rows", "images/s", "workers at work", "seconds at work"), rows)


def write_csv(folder: Path, audit: Audit, drift: Drift | None) -> list[Path]:
    """A CSV for each table with all its rows, for spreadsheets; a `'` stands before text that would be a formula there."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in (audit.tables | ({"drift": drift.rows} if drift else {})).items():
        written.append(folder / f"{name}.csv")
        with written[-1].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            for number, row in enumerate(rows):
                if not number:
                    writer.writerow(row._fields)
                writer.writerow(f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA) else v for v in row)
    return written


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: bool = False) -> Table:
    """A table of at most `MAX_ROWS` rows; numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_header=True)
    listed = list(rows)
    for place, name in enumerate(columns):
        right = bool(listed) and _is_number(listed[0][place])
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for row in listed[:MAX_ROWS]:
        table.add_row(*(Text("" if value is None else printable(_shown(value))) for value in row))
    if len(listed) > MAX_ROWS:
        table.caption, table.caption_justify = f"and {len(listed) - MAX_ROWS:,} more (--json, --csv)", "left"
    if not listed and not empty:
        table.show_header = False
    return table


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(value: object) -> bool:
    return not isinstance(value, str) or value[-1:] == "%" or value.lstrip("+-").replace(".", "").isdigit()


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _statuses(audit: Audit) -> Iterator[tuple[object, ...]]:
    for row in audit.status:
        filled = f"{row.removed:.1%}" if row.removed else None
        yield row.status, row.images, f"{row.images / max(1, audit.images):.1%}", filled


def _removed(audit: Audit) -> Iterator[tuple[object, ...]]:
    of_class: Counter[str] = Counter()
    for row in audit.classes:
        of_class[row.label] += row.things
    for row in audit.classes:
        if row.verdict == Verdict.REMOVE:
            relation = None if row.relation is None else f"{row.relation:.2f}"
            yield (
                row.label,
                row.reason,
                row.things,
                f"{row.things / of_class[row.label]:.1%}",
                f"{row.share:.1%}",
                relation,
            )


def _kept(audit: Audit) -> Iterator[tuple[object, ...]]:
    kept: Counter[str] = Counter()
    for row in audit.classes:
        if row.verdict == Verdict.KEEP:
            kept[row.reason] += row.things
    for reason, things in kept.most_common():
        yield reason, things, f"{things / audit.things:.1%}"


def _scores(audit: Audit, bar: str) -> Iterator[tuple[object, ...]]:
    counts = [Counter[str]() for _ in range(_SCORE_STEPS)]
    for row in audit.relations:
        counts[int((row.low + row.high) / 2 * _SCORE_STEPS)][row.verdict] += row.things
    most = max(map(Counter.total, counts))
    for step, count in enumerate(counts):
        if most:
            low = step / _SCORE_STEPS
            length = _length(count.total(), most)
            yield f"{low:.1f} to {low + 1 / _SCORE_STEPS:.1f}", count[Verdict.KEEP], count[Verdict.REMOVE], bar * length


def _areas(audit: Audit, bar: str) -> Iterator[tuple[object, ...]]:
    pairs = list(pairwise(_AREAS))
    counts = [sum(row.images for row in audit.removed if low <= row.low < high) for low, high in pairs]
    for (low, high), images in zip(pairs, counts, strict=True):
        if sum(counts):
            yield f"{low:.0%} to {high:.0%}", images, bar * _length(images, max(counts))


def _length(count: int, most: int) -> int:
    """Of a bar; a count above 0 is at least one character."""
    return max(1, round(_BAR * count / most)) if count else 0
