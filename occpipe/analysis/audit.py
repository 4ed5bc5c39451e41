"""What a published output says of itself: how many, why, where, how sure; all figures of all rows, from the Parquet alone.

The questions stand in `data/audit.sql` and are put to DuckDB over some hundred thousand rows at a time. Each answer is
either sums, which are added up, or the first few of an order, of which the first few are kept; so memory does not grow with
the corpus. Bound by decoding the columns that it reads and by grouping, on all cores (`benchmarks/audit.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from occpipe.analysis.flatten import ROWS, flat_tables
from occpipe.core.errors import StorageError, first_line
from occpipe.core.resources import cores
from occpipe.core.types import Status
from occpipe.dataset.reader import Published, PublishedFile, cut_of_run

TOP = 10
"""Outliers of each kind."""
MOST_THREADS = 8
STEPS = 50
"""Steps of the relation score, in `data/audit.sql`."""

_KEYS = {"status": 1, "failures": 4, "classes": 3, "relations": 3, "removed": 1, "removals": 1, "scenes": 2}
"""The answers that are sums, with the number of columns by which they are grouped; what follows is added up."""

_ORDER: dict[str, Callable[[Any], Any]] = {
    "large": lambda row: (-row[0], row[2]),
    "near": lambda row: (abs(row[0]), row[2], row[3]),
    "many": lambda row: (-row[0], row[2]),
}
"""The answers that are lists, with their order."""

Sums = dict[tuple[Any, ...], list[float]]


class StatusRow(NamedTuple):
    """Images of a status, and how much of them was filled: the mean share of an image, and pixels in all."""

    status: str
    images: int
    removed: float
    pixels: int


class FailureRow(NamedTuple):
    """Images that were skipped or failed, by reason, stage, and the type of the error."""

    status: str
    reason: str
    stage: str | None
    type: str | None
    images: int


class ClassRow(NamedTuple):
    """Things of a class with one verdict and reason: their mean share of the image, and their mean relation if scored."""

    label: str
    verdict: str
    reason: str
    things: int
    share: float
    relation: float | None


class RelationRow(NamedTuple):
    """Things whose relation score is from `low` to below `high`."""

    low: float
    high: float
    verdict: str
    reason: str
    things: int


class RemovedRow(NamedTuple):
    """Images of which a share from `low` to below `high` is filled."""

    low: float
    high: float
    images: int


class SceneRow(NamedTuple):
    """Images from which a class was removed and that show this stuff, and their share of those it was removed from."""

    label: str
    stuff: str
    images: int
    share: float


class OutlierRow(NamedTuple):
    """A row worth a look. `large`: value is the share that is filled; `near`: relation less cut; `many`: things."""

    kind: str
    value: float
    uri: str
    image_id: int
    object: int | None
    label: str | None
    verdict: str | None


@dataclass(frozen=True, slots=True)
class Audit:
    """All figures of a published output. `cut` is None where the scorer of the run cannot be had here."""

    output: str
    images: int
    things: int
    cut: float | None
    config: dict[str, Any]
    status: list[StatusRow]
    failures: list[FailureRow]
    classes: list[ClassRow]
    relations: list[RelationRow]
    removed: list[RemovedRow]
    scenes: list[SceneRow]
    outliers: list[OutlierRow]

    @property
    def tables(self) -> dict[str, list[Any]]:
        """The tables by name, each a list of equal rows; what is in them is in order."""
        return {field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), list)}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the totals by status under `totals`."""
        return {
            "output": self.output,
            "images": self.images,
            "things": self.things,
            "cut": self.cut,
            "totals": {row.status: row.images for row in self.status},
            **{name: [row._asdict() for row in rows] for name, rows in self.tables.items()},
        }


def audit(output_uri: str, *, top: int = TOP) -> Audit:
    """All figures of what is published at `output_uri`, with `top` outliers of each kind.

    Raises StorageError where nothing is published there, or a file is damaged.
    """
    published = Published(output_uri)
    cut = _cut_of(published)
    workers = min(cores(), MOST_THREADS)
    parts = _parts(published.files)
    answers = _Answers(top)
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda part: _ask(published, part, cut, answers), parts):
            pass
    return _figures(output_uri, published.manifest, cut, answers)


def _cut_of(published: Published) -> float | None:
    try:
        return cut_of_run(published.config)
    except StorageError:  # another version of occpipe wrote it
        return None


@cache
def queries() -> dict[str, str]:
    """The questions of `data/audit.sql` by name."""
    text = files("occpipe").joinpath("analysis/audit.sql").read_text(encoding="utf-8")
    found = {}
    for block in text.split("\n\n"):
        head, _, query = block.partition("\n")
        found[head.removeprefix("-- ").partition(":")[0]] = query.strip().removesuffix(";")
    return found


class _Answers:
    """The answers so far, by question; threads add to them."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.sums: dict[str, Sums] = {name: {} for name in _KEYS}
        self.lists: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _ORDER}
        self._lock = threading.Lock()

    def add(self, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._lock:
            if order := _ORDER.get(name):
                self.lists[name] = sorted([*self.lists[name], *rows], key=order)[: self.top]
                return
            keys, sums = _KEYS[name], self.sums[name]
            for row in rows:
                values = [value or 0 for value in row[keys:]]
                before = sums.get(row[:keys])
                sums[row[:keys]] = values if before is None else [a + b for a, b in zip(before, values, strict=True)]


def _parts(published: Sequence[PublishedFile]) -> list[list[str]]:
    """The published files in runs of about `ROWS` rows: what a thread does at a time."""
    parts: list[list[str]] = []
    rows = ROWS
    for file in published:
        if rows >= ROWS:
            parts.append([])
            rows = 0
        parts[-1].append(file.name)
        rows += file.rows
    return parts


def _ask(published: Published, part: Sequence[str], cut: float | None, answers: _Answers) -> None:
    with duckdb.connect(config={"threads": 1}) as database:  # the threads are ours
        database.execute("SET VARIABLE cut = $1::DOUBLE", [cut])
        database.execute("SET VARIABLE top = $1", [answers.top])
        try:
            for flat in flat_tables(published, part):
                for name, table in flat._asdict().items():
                    database.register(name, table)
                for name, query in queries().items():
                    answers.add(name, database.execute(query).fetchall())
        except (pa.ArrowException, OSError, duckdb.Error) as error:  # what is read may be a stranger's
            raise StorageError(f"{published.uri}: a published file cannot be read: {first_line(error)}") from error


def _figures(output: str, manifest: Mapping[str, Any], cut: float | None, answers: _Answers) -> Audit:
    sums, lists = answers.sums, answers.lists
    known = {str(status): [0, 0.0, 0] for status in Status}
    status = known | {key[0]: values for key, values in sums["status"].items()}
    gone = {key[0]: values[0] for key, values in sums["removals"].items()}
    outliers = [(kind, *row, *[None] * (6 - len(row))) for kind, rows in lists.items() for row in rows]
    return Audit(
        output=output,
        images=int(sum(images for images, *_ in status.values())),
        things=int(sum(things for things, *_ in sums["classes"].values())),
        cut=cut,
        config=manifest["config"],
        status=[StatusRow(name, int(n), removed / max(1, n), int(p)) for name, (n, removed, p) in status.items()],
        failures=[FailureRow._make((*key, int(n))) for key, (n,) in _most(sums["failures"])],
        classes=[
            ClassRow._make((*key, int(things), share / things, relation / scored if scored else None))
            for key, (things, share, scored, relation) in _most(sums["classes"])
        ],
        relations=[
            RelationRow(step / STEPS, (step + 1) / STEPS, verdict, reason, int(n))
            for (step, verdict, reason), (n,) in sorted(sums["relations"].items())
        ],
        removed=[RemovedRow(p / 100, (p + 1) / 100, int(n)) for (p,), (n,) in sorted(sums["removed"].items())],
        scenes=[SceneRow._make((*key, int(n), n / gone[key[0]])) for key, (n,) in _most(sums["scenes"])],
        outliers=[OutlierRow(*row) for row in outliers],
    )


def _most(sums: Sums) -> list[tuple[Any, list[float]]]:
    """The largest first; equal ones by name."""
    return sorted(sums.items(), key=lambda item: (-item[1][0], tuple(map(str, item[0]))))
