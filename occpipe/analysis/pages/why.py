"""The shares of the context: how much each class around a thing adds to its score."""

from __future__ import annotations

from occpipe.analysis.pages.types import PagePolicy
from occpipe.core.config import Config
from occpipe.core.rows import Row
from occpipe.dataset.reader import cut_of_run, relations_at_hand
from occpipe.models.relations import EmbeddingScorer, RelationScorer
from occpipe.models.relations.decide import context_of

_SAME = 0.005
"""Relations nearer than this are of the same scorer: rows hold float32, and its sums vary in the last digits."""


class Why:
    """Shares of the context by the scorer of a config. There are none where its file lies on another machine."""

    def __init__(self, config: Config, scorer: RelationScorer | None = None) -> None:
        scorer = scorer or relations_at_hand(config.relations)
        self.policy = config.policy
        self.cut = cut_of_run(config, scorer)
        self._scorer = scorer if isinstance(scorer, EmbeddingScorer) else None

    @property
    def limits(self) -> PagePolicy:
        """The limits for a page."""
        policy = self.policy
        return {
            "cut": self.cut,
            "min_area": policy.min_area,
            "max_area": policy.max_area,
            "min_score": policy.min_score,
        }

    def shares(self, row: Row) -> dict[str, dict[str, float]]:
        """Per thing class, how much each context class adds to the log-odds that it belongs; see `EmbeddingScorer.shares`.

        A class is left out where its relation in the row differs from the relation by this scorer.
        """
        scorer, shares = self._scorer, dict[str, dict[str, float]]()
        if scorer is None or not row["objects"]:
            return shares
        things = [(item["label"], item["score"]) for item in row["objects"]]
        stuff = {item["label"]: item["confidence"] for item in row["stuff"] or ()}
        context = context_of(things, stuff, self.policy, scorer)
        for label, relation in {o["label"]: o["relation"] for o in row["objects"]}.items():
            if relation is None or label not in scorer.vectors:
                continue
            around = context.around(label)
            score = scorer.score(label, around).score
            if score is not None and abs(score - relation) < _SAME:
                shares[label] = scorer.shares(label, around)
        return shares
