"""The table of docs/metadata.md, from the round trips of the collection: `python -m tests.roundtrip.table`."""

from __future__ import annotations

import sys
from collections import defaultdict

from tests.roundtrip.collection import FORMATS, other_pictures, samples, trip
from tests.roundtrip.facts import facts

NAMED = {
    "EXIF": "EXIF",
    "extended XMP": "extended XMP",
    "XMP": "XMP",
    "comment": "comment",
    "texts": "PNG text",
    "interlacing": "interlacing",
    "compression": "compression",
    "bit depth": "palette",
    "mode": "palette",
    "header and masks": "BMP",
}
"""How the row names a fact that is not kept."""


def cells() -> dict[str, dict[str, list[str]]]:
    """Of each fact and format, what came of it in each file that has it: kept, or named in the row, or lost silently."""
    outcomes: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples():
        made = trip(sample)
        before, after = facts(sample.data), facts(made.data)
        for name, value in before.items():
            if after.get(name) == value:
                outcome = "kept"
            elif any(lost.startswith(NAMED.get(name, name)) for lost in made.lost):
                outcome = "named"
            else:
                outcome = f"lost silently in {sample.name}"
            outcomes[name][sample.format].append(outcome)
    return outcomes


def table() -> str:
    """A line for each fact, a column for each format."""
    lines = ["| | " + " | ".join(FORMATS) + " |", "| --- |" + " --- |" * len(FORMATS)]
    holders = {sample.format for sample in samples() if other_pictures(sample.data)}
    left = {sample.format for sample in samples() if other_pictures(trip(sample).data)}
    pictures = ["left" if fmt in left else "gone" if fmt in holders else "–" for fmt in FORMATS]
    lines.append("| other pictures | " + " | ".join(pictures) + " |")
    outcomes = cells()
    for name in outcomes:
        row = []
        for fmt in FORMATS:
            seen = outcomes[name].get(fmt, [])
            kept, named = seen.count("kept"), seen.count("named")
            if not seen:
                row.append("–")
            elif kept == len(seen):
                row.append("kept")
            elif kept + named == len(seen):
                row.append("kept, or named" if kept else "not kept, named")
            else:
                row.append("lost")
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
