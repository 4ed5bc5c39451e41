"""Words of `segmenter.classes`: each needs a vector, or a place in the policy."""

from __future__ import annotations

import difflib

from occpipe.core.classes import token
from occpipe.core.config import Config
from occpipe.core.errors import ConfigError
from occpipe.models.relations import EmbeddingScorer, PaperScorer, RelationScorer


def check_words(config: Config, scorer: RelationScorer) -> None:
    """Raise ConfigError for a word that neither a vector nor the policy knows, with the nearest known ones."""
    policy = config.policy
    decided = {token(name) for name in (*policy.keep, *policy.protect, *policy.remove)}
    if not isinstance(scorer, EmbeddingScorer | PaperScorer):
        return
    for word in config.segmenter.classes:
        if word not in scorer.vectors and token(word) not in decided:
            near = difflib.get_close_matches(word.split()[-1], scorer.vectors.tokens, n=3, cutoff=0.5)
            meant = f", did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"segmenter.classes: no vector knows {word!r:.60}{meant}")
