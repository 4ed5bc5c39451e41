"""Load time of the relation predictor, and its rate for many pairs at once and one by one.

What bounds it: the head's two products, 3 nets x 2 x 48 x 192 multiply-adds a pair, about 55,000, or 2 to 5 us a pair on
one core; looking a pair's names up costs as much again in Python.
Run: python benchmarks/relations.py [--pairs 1000000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np

from occpipe.core.classes import coco_stuff
from occpipe.models.relations import EmbeddingScorer, load_relations

CONTEXT = 8
ONE_BY_ONE = 2000


def load_seconds() -> float:
    """Seconds of `load_relations()` in a fresh process, after the import."""
    code = "import time; from occpipe.models.relations import load_relations as f; s = time.perf_counter(); f(); "
    code += "print(time.perf_counter() - s)"
    return min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    pairs: int = parser.parse_args().pairs
    print(f"load: {load_seconds():.3f} s (bound 0.3)")
    scorer = load_relations()
    assert isinstance(scorer, EmbeddingScorer)
    rng = np.random.default_rng(0)
    names = [c.name for c in coco_stuff()]
    distinct = min(pairs, 50_000)
    things = [names[i] for i in rng.integers(0, 91, distinct)]
    contexts = [[names[i] for i in rng.integers(0, len(names), CONTEXT)] for _ in range(distinct)]
    start = time.perf_counter()
    for done in range(0, pairs, distinct):
        scorer.log_odds(things[: pairs - done], contexts[: pairs - done])
    many = time.perf_counter() - start
    few = min(ONE_BY_ONE, distinct)
    start = time.perf_counter()
    scored = 0
    for thing, context in zip(things[:few], contexts[:few], strict=True):
        if {scorer.vectors.key(c) for c in context} - {scorer.vectors.key(thing)}:
            scorer.relation(thing, context)
            scored += 1
    single = (time.perf_counter() - start) / scored
    print(
        f"{pairs} pairs of a thing and {CONTEXT} context classes, by name: {many:.1f} s, {many / pairs * 1e6:.1f} us a pair"
    )
    print(f"one by one: {single * 1e6:.0f} us a pair, {single * pairs / many:.0f} times as long")


if __name__ == "__main__":
    main()
