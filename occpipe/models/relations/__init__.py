"""The relation predictor: class vectors, and scorers of a thing and its context with them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from occpipe.core.classes import aliases
from occpipe.models.relations.paper import PAPER_COS_MAX, PAPER_COS_MIN, PAPER_CUT, PaperScorer
from occpipe.models.relations.scene import SceneContext, scene_context
from occpipe.models.relations.scorer import Context, EmbeddingScorer, RelationScorer
from occpipe.models.relations.vectors import ClassVectors, read_asset

__all__ = [
    "PAPER_COS_MAX",
    "PAPER_COS_MIN",
    "PAPER_CUT",
    "ClassVectors",
    "Context",
    "EmbeddingScorer",
    "PaperScorer",
    "RelationScorer",
    "SceneContext",
    "aliases",
    "load_relations",
    "scene_context",
]


def load_relations(
    method: Literal["default", "paper2019"] = "default",
    vectors: str | Path | None = None,
    *,
    cos_min: float = PAPER_COS_MIN,
    cos_max: float = PAPER_COS_MAX,
    deduplicate_tokens: bool = False,
) -> RelationScorer:
    """A relation scorer; without arguments the default one on the vectors that ship in the package.

    `vectors` is a relation file (.safetensors, written by the training job) or, for `paper2019`, vectors in word2vec
    format (.bin, .txt). The last three arguments are for `paper2019` only; its shipped vectors are trained as in
    the paper, on other captions. Raises ValueError if the file does not fit the method.
    """
    if method not in ("default", "paper2019"):
        raise ValueError(f"unknown relation method {method!r}: use 'default' or 'paper2019'")
    words = vectors is not None and Path(vectors).suffix != ".safetensors"
    if method == "default":
        if words:
            raise ValueError(
                f"{vectors}: the default scorer needs a relation file (.safetensors); plain vectors have no head"
            )
        arrays, description = read_asset(vectors)
        return EmbeddingScorer.from_arrays(arrays, description)
    if words:
        table = ClassVectors.from_word2vec(str(vectors))
    else:
        arrays, description = read_asset(vectors)
        table = ClassVectors(description["paper_tokens"], arrays["paper_vectors"], description.get("aliases"))
    return PaperScorer(table, cos_min, cos_max, deduplicate_tokens)
