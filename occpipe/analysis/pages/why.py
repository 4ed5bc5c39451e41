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

        A class is left out where its evidence in the row differs from that of this scorer.
        """
        scorer, shares = self._scorer, dict[str, dict[str, float]]()
        if scorer is None or not row["objects"]:
            return shares
        things = [(item["label"], item["score"]) for item in row["objects"]]
        stuff = {item["label"]: item["confidence"] for item in row["stuff"] or ()}
        context = context_of(things, stuff, self.policy, scorer)
        for label, evidence in {o["label"]: o["evidence"] for o in row["objects"]}.items():
            if not evidence or label not in scorer.vectors:
                continue
            around = context.around(label)
            now = {item.context: item.relation for item in scorer.score(label, around).evidence}
            then = {item["context"]: item["relation"] for item in evidence}
            if now.keys() == then.keys() and all(abs(now[name] - then[name]) < _SAME for name in now):
                shares[label] = scorer.shares(label, around)
        return shares
