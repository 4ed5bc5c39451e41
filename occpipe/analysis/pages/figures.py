"""What heads a page: the figures of an audit, as its plots read them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from occpipe.analysis.audit import STEPS, Audit
from occpipe.analysis.pages.entries import short
from occpipe.core.types import Reason, Status, Verdict

MOST_NAMES = 40
"""Names in a list of a page, the most frequent ones; the rest is summed."""


def summary(made: Audit) -> dict[str, Any]:
    """The figures of all rows as JSON values; `area` is the mean share that is filled, or to be filled after a scan."""
    failures, reasons, removed = Counter[str](), Counter[str](), Counter[str]()
    for failure in made.failures:
        failures[failure.reason] += failure.images
    for row in made.classes:
        reasons[row.reason] += row.things
        removed[row.label] += row.things if row.verdict == Verdict.REMOVE else 0
    filled = [row for row in made.status if row.status in (Status.CLEANED, Status.SCANNED)]
    return {
        "images": made.images,
        "status": {row.status: row.images for row in made.status},
        "failures": _most(failures),
        "things": made.things,
        "gone": removed.total(),
        "reasons": _most(reasons),
        "removed": _most(+removed),
        "area": sum(row.removed * row.images for row in filled) / max(1, sum(row.images for row in filled)),
        "histogram": _bars(made),
    }


def _bars(made: Audit) -> dict[str, list[int]]:
    """Things by step of their relation, and by what decided: the relation, or something else."""
    bars = {kind: [0] * STEPS for kind in (Reason.UNRELATED, Reason.RELATED, "other")}
    for row in made.relations:
        bars[row.reason if row.reason in bars else "other"][round(row.low * STEPS)] += row.things
    return {str(kind): counts for kind, counts in bars.items()}


def _most(counts: Counter[str]) -> list[list[Any]]:
    """The most frequent names with their counts, ties by name; then the rest as one, without a name."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in ranked[MOST_NAMES:])
    return [[short(name), count] for name, count in ranked[:MOST_NAMES]] + ([[None, rest]] if rest else [])
