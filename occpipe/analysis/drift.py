"""How two published outputs differ, from their audits: settings, shares of images and things, and relation scores.

The two-proportion z-test tells a difference of shares from chance (Fleiss, Levin, Paik, "Statistical Methods for Rates and
Proportions", 3.2). Things of one image are not independent, so |z| around 3 may still be chance, and 10 is not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from occpipe.analysis.audit import Audit
from occpipe.core.types import Verdict


class DriftRow(NamedTuple):
    """A share before and after: of images (`what` is status, failure), of things (reason, class), of a class (removed)."""

    what: str
    name: str
    before: float
    after: float
    z: float


@dataclass(frozen=True, slots=True)
class Drift:
    """The differences between two outputs; rows by |z|, the surest difference first.

    `relations` is the total variation distance of the relation scores: the share of things whose score would have to move
    to another step. It is None where one of the outputs has no scores. `settings` are the keys of the config that differ,
    with both values.
    """

    before: str
    after: str
    relations: float | None
    settings: dict[str, tuple[object, object]]
    rows: list[DriftRow]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self) | {"rows": [row._asdict() for row in self.rows]}


def compare(before: Audit, after: Audit) -> Drift:
    """Compare an earlier output with a later one."""
    rows = [*_shares("status", _statuses(before), _statuses(after))]
    rows += _shares("failure", _failures(before), _failures(after), before.images, after.images)
    rows += _shares("reason", _things(before, "reason"), _things(after, "reason"))
    rows += _shares("class", _things(before, "label"), _things(after, "label"))
    rows += _removed(before, after)
    rows.sort(key=lambda row: (-abs(row.z), row.what, row.name))
    scores = [_normal(Counter(_scores(audit))) for audit in (before, after)]
    moved = sum(abs(scores[0].get(step, 0.0) - scores[1].get(step, 0.0)) for step in {*scores[0], *scores[1]}) / 2
    distance = moved if all(scores) else None
    return Drift(before.output, after.output, distance, _settings(before.config, after.config), rows)


def _shares(
    what: str, before: Mapping[str, int], after: Mapping[str, int], total: int | None = None, later: int | None = None
) -> list[DriftRow]:
    """A row for each name, as shares of the totals."""
    ends = sum(before.values()) if total is None else total, sum(after.values()) if later is None else later
    names = dict.fromkeys((*before, *after))
    return [_row(what, name, before.get(name, 0), ends[0], after.get(name, 0), ends[1]) for name in names]


def _row(what: str, name: str, hits: int, of: int, later_hits: int, later_of: int) -> DriftRow:
    share, later = hits / max(1, of), later_hits / max(1, later_of)
    pooled = (hits + later_hits) / max(1, of + later_of)
    error = math.sqrt(pooled * (1 - pooled) * (1 / max(1, of) + 1 / max(1, later_of)))
    return DriftRow(what, name, share, later, (later - share) / error if error else 0.0)


def _statuses(audit: Audit) -> dict[str, int]:
    return {row.status: row.images for row in audit.status}


def _failures(audit: Audit) -> Counter[str]:
    return _count((row.reason, row.images) for row in audit.failures)


def _things(audit: Audit, column: str) -> Counter[str]:
    return _count((getattr(row, column), row.things) for row in audit.classes)


def _removed(before: Audit, after: Audit) -> list[DriftRow]:
    """Per class that both outputs have, the share of its things that was removed."""
    all_of = [_things(audit, "label") for audit in (before, after)]
    gone = [
        _count((row.label, row.things) for row in audit.classes if row.verdict == Verdict.REMOVE)
        for audit in (before, after)
    ]
    names = [name for name in all_of[0] if name in all_of[1] and (gone[0][name] or gone[1][name])]
    return [_row("removed", name, gone[0][name], all_of[0][name], gone[1][name], all_of[1][name]) for name in names]


def _scores(audit: Audit) -> Counter[float]:
    counts: Counter[float] = Counter()
    for row in audit.relations:
        counts[row.low] += row.things
    return counts


def _normal(counts: Counter[float]) -> dict[float, float]:
    total = counts.total() or 1
    return {step: count / total for step, count in counts.items()}


def _count(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, number in pairs:
        counts[name] += number
    return counts


def _settings(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    flat = [dict(_flat(config)) for config in (before, after)]
    keys = sorted({*flat[0], *flat[1]} - {"digest"})
    return {key: (flat[0].get(key), flat[1].get(key)) for key in keys if flat[0].get(key) != flat[1].get(key)}


def _flat(section: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
