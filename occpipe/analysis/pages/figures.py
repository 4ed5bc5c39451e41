"""The statistics at the head of a page, from an audit, as its plots read them."""

from __future__ import annotations

from collections import Counter

from occpipe.analysis.audit import STEPS, Audit
from occpipe.analysis.pages.entries import shortened
from occpipe.analysis.pages.types import Count, Figures
from occpipe.core.types import Reason, Status, Verdict

MAX_NAMES = 40
"""Names in a list of a page, the most frequent ones; the others are summed."""


def figures_of(audit: Audit) -> Figures:
    """The figures of an audit."""
    failures, reasons, removed = Counter[str](), Counter[str](), Counter[str]()
    for failure in audit.failures:
        failures[failure.reason] += failure.images
    for row in audit.classes:
        reasons[row.reason] += row.things
        removed[row.label] += row.things if row.verdict == Verdict.REMOVE else 0
    filled = [row for row in audit.status if row.status in (Status.CLEANED, Status.SCANNED)]
    return {
        "images": audit.images,
        "status": {row.status: row.images for row in audit.status},
        "failures": _ranked(failures),
        "things": audit.things,
        "gone": removed.total(),
        "reasons": _ranked(reasons),
        "removed": _ranked(+removed),
        "area": sum(row.removed * row.images for row in filled) / max(1, sum(row.images for row in filled)),
        "histogram": _bars(audit),
    }


def _bars(audit: Audit) -> dict[str, list[int]]:
    """Things by step of their relation, and by reason: the two of the relation, or another one."""
    bars = {kind: [0] * STEPS for kind in (Reason.UNRELATED, Reason.RELATED, "other")}
    for row in audit.relations:
        bars[row.reason if row.reason in bars else "other"][round(row.low * STEPS)] += row.things
    return {str(kind): counts for kind, counts in bars.items()}


def _ranked(counts: Counter[str]) -> list[Count]:
    """The most frequent names with their counts, ties by name; then the sum of the others."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in ranked[MAX_NAMES:])
    others: list[Count] = [(None, rest)] if rest else []
    return [*((shortened(name), count) for name, count in ranked[:MAX_NAMES]), *others]
