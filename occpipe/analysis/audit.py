"""The audit of a published output: statistics of all rows, from the Parquet alone.

DuckDB runs the queries of `audit.sql` over some hundred thousand rows at a time. A result is either sums, which are added
up, or the first few rows of an order. So memory does not grow with the corpus. The time goes into decoding the columns
and grouping, on all cores (`benchmarks/audit.py`).
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
MAX_THREADS = 8
STEPS = 50
"""Steps of the relation score, in `audit.sql`."""

_KEYS = {"status": 1, "failures": 4, "classes": 3, "relations": 3, "removed": 1, "removals": 1, "scenes": 2}
"""The queries whose results are sums, with the number of columns by which they are grouped; the others are added up."""

_ORDER: dict[str, Callable[[Any], Any]] = {
    "large": lambda row: (-row[0], row[2]),
    "near": lambda row: (abs(row[0]), row[2], row[3]),
    "many": lambda row: (-row[0], row[2]),
}
"""The queries whose results are lists, with their order."""

Key = tuple[Any, ...]  # of DuckDB: text, numbers, None
Sums = dict[Key, list[float]]


class StatusRow(NamedTuple):
    """Images of a status, the mean share of an image that was filled, and the filled pixels of all."""

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
    """A row worth a look. The value of `large` is the filled share, of `near` relation minus cut, of `many` things."""

    kind: str
    value: float
    uri: str
    image_id: int
    object: int | None
    label: str | None
    verdict: str | None


TableRow = StatusRow | FailureRow | ClassRow | RelationRow | RemovedRow | SceneRow | OutlierRow


@dataclass(frozen=True, slots=True)
class Audit:
    """The statistics of a published output. `cut` is None where the scorer of the run is not on this machine."""

    output: str
    images: int
    things: int
    cut: float | None
    config: Mapping[str, object]
    status: list[StatusRow]
    failures: list[FailureRow]
    classes: list[ClassRow]
    relations: list[RelationRow]
    removed: list[RemovedRow]
    scenes: list[SceneRow]
    outliers: list[OutlierRow]

    @property
    def tables(self) -> dict[str, list[TableRow]]:
        """The tables by name; the rows of each are in order."""
        return {field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), list)}

    def as_dict(self) -> dict[str, object]:
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
    """The audit of what is published at `output_uri`, with `top` outliers of each kind.

    Raises StorageError where nothing is published there, or a file is damaged.
    """
    published = Published(output_uri)
    cut = _cut_of(published)
    workers = min(cores(), MAX_THREADS)
    parts = _parts(published.files)
    results = _Results(top)
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda part: _query(published, part, cut, results), parts):
            pass
    return _audit_of(output_uri, published.manifest["config"], cut, results)


def _cut_of(published: Published) -> float | None:
    try:
        return cut_of_run(published.config)
    except StorageError:  # another version of occpipe wrote it
        return None


@cache
def queries() -> dict[str, str]:
    """The queries of `audit.sql` by name."""
    text = files("occpipe").joinpath("analysis/audit.sql").read_text(encoding="utf-8")
    by_name = {}
    for block in text.split("\n\n"):
        head, _, query = block.partition("\n")
        by_name[head.removeprefix("-- ").partition(":")[0]] = query.strip().removesuffix(";")
    return by_name


class _Results:
    """The results so far, by query; threads add to them."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.sums: dict[str, Sums] = {name: {} for name in _KEYS}
        self.lists: dict[str, list[Key]] = {name: [] for name in _ORDER}
        self._lock = threading.Lock()

    def add(self, name: str, rows: Iterable[Key]) -> None:
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
    """The published files in groups of about `ROWS` rows, one task of a thread each."""
    parts: list[list[str]] = []
    rows = ROWS
    for file in published:
        if rows >= ROWS:
            parts.append([])
            rows = 0
        parts[-1].append(file.name)
        rows += file.rows
    return parts


def _query(published: Published, part: Sequence[str], cut: float | None, results: _Results) -> None:
    with duckdb.connect(config={"threads": 1}) as database:  # the threads are ours
        database.execute("SET VARIABLE cut = $1::DOUBLE", [cut])
        database.execute("SET VARIABLE top = $1", [results.top])
        try:
            for flat in flat_tables(published, part):
                for name, table in flat._asdict().items():
                    database.register(name, table)
                for name, query in queries().items():
                    results.add(name, database.execute(query).fetchall())
        except (pa.ArrowException, OSError, duckdb.Error) as error:  # the files may come from strangers
            raise StorageError(f"{published.uri}: a published file cannot be read: {first_line(error)}") from error


def _audit_of(output: str, config: Mapping[str, object], cut: float | None, results: _Results) -> Audit:
    sums, lists = results.sums, results.lists
    zeros = {str(status): [0, 0.0, 0] for status in Status}
    status = zeros | {key[0]: values for key, values in sums["status"].items()}
    gone = {key[0]: values[0] for key, values in sums["removals"].items()}
    outliers = [(kind, *row, *[None] * (6 - len(row))) for kind, rows in lists.items() for row in rows]
    return Audit(
        output=output,
        images=int(sum(images for images, *_ in status.values())),
        things=int(sum(things for things, *_ in sums["classes"].values())),
        cut=cut,
        config=config,
        status=[StatusRow(name, int(n), removed / max(1, n), int(p)) for name, (n, removed, p) in status.items()],
        failures=[FailureRow._make((*key, int(n))) for key, (n,) in _ranked(sums["failures"])],
        classes=[
            ClassRow._make((*key, int(things), share / things, relation / scored if scored else None))
            for key, (things, share, scored, relation) in _ranked(sums["classes"])
        ],
        relations=[
            RelationRow(step / STEPS, (step + 1) / STEPS, verdict, reason, int(n))
            for (step, verdict, reason), (n,) in sorted(sums["relations"].items())
        ],
        removed=[RemovedRow(p / 100, (p + 1) / 100, int(n)) for (p,), (n,) in sorted(sums["removed"].items())],
        scenes=[SceneRow._make((*key, int(n), n / gone[key[0]])) for key, (n,) in _ranked(sums["scenes"])],
        outliers=[OutlierRow(*row) for row in outliers],
    )


def _ranked(sums: Sums) -> list[tuple[Key, list[float]]]:
    """The largest first; equal ones by name."""
    return sorted(sums.items(), key=lambda item: (-item[1][0], tuple(map(str, item[0]))))
