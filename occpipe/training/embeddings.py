"""Class vectors from captions: streamed reading, reduction to tokens through the alias table, skip-gram with gensim.

Captions are read one at a time and written once, tokenised, to a temporary file that gensim streams in every epoch; so
memory depends on the vocabulary, not on the number of captions.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from occpipe.core.classes import aliases, coco_stuff
from occpipe.core.tables import open_text
from occpipe.models.relations.vectors import ClassVectors, singular

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the of in on at to with and is are it its his her their this that there by for from as be been being
        has have while he she they them him or two one some up out into over under near next front other another
        which who what three four several very off down around through
        """,
    )
)
"""Words without visual content; they would fill the windows of the skip-gram."""

MAX_VOCABULARY = 2_000_000
"""Distinct words in memory while captions are counted, about 1 GB; English captions have some 100,000."""

_JSON_CHUNK = 1 << 16

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EmbeddingConfig:
    """Settings of gensim's skip-gram with negative samples; `keep` words of the captions stay beside the class tokens."""

    dim: int = 64
    window: int = 10
    negative: int = 10
    epochs: int = 8
    min_count: int = 8
    keep: int = 6000
    sample: float = 1e-3
    seed: int = 1


PAPER_RECIPE = EmbeddingConfig(dim=128, window=1, negative=64, epochs=10, min_count=1, keep=0, sample=0.0)
"""The paper's: dimension 128, window 1, 64 negatives, over captions reduced to class tokens (its public code)."""


def read_captions(path: str | Path) -> Iterator[str]:
    """The captions of a file, streamed; `.gz` is opened by itself.

    `.tsv`: the column `caption` of the header, or the last column where there is no header; `.json`: COCO captions;
    anything else: one caption per line. Raises ValueError where a JSON file holds no COCO captions.
    """
    path = Path(path)
    kind = [s for s in path.suffixes if s != ".gz"][-1:]
    with open_text(path) as stream:
        if kind == [".json"]:
            yield from _coco_captions(stream, path)
        elif kind == [".tsv"]:
            column = -1
            for number, row in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)):
                if number == 0 and "caption" in row:
                    column = row.index("caption")
                elif row and len(row) > max(column, 0):
                    yield row[column]
        else:
            yield from (line.rstrip("\n") for line in stream if line.strip())


def _coco_captions(stream: IO[str], path: Path) -> Iterator[str]:
    """The captions of a COCO file, decoded one annotation at a time."""
    decoder = json.JSONDecoder()
    buffer = ""
    while (start := re.search(r'"annotations"\s*:\s*\[', buffer)) is None:
        chunk = stream.read(_JSON_CHUNK)
        if not chunk:
            raise ValueError(f"{path}: no annotations with captions, as COCO has them")
        buffer = buffer[-64:] + chunk  # the key may lie across two chunks
    buffer = buffer[start.end() :]
    while True:
        buffer = buffer.lstrip(" \t\r\n,")
        if buffer.startswith("]"):
            return
        try:
            annotation, end = decoder.raw_decode(buffer)
        except json.JSONDecodeError:
            chunk = stream.read(_JSON_CHUNK)
            if not chunk:
                raise ValueError(f"{path}: cut off within its annotations") from None
            buffer += chunk
            continue
        buffer = buffer[end:]
        if "caption" in annotation:
            yield annotation["caption"]


def tokenise(caption: str, table: Mapping[str, str] | None = None) -> list[str]:
    """The words of a caption without stop words; phrases and synonyms of a class become its token, longest first.

    `table` maps a word or phrase to its token, by default the aliases of the package.
    """
    table = aliases() if table is None else table
    words = re.findall(r"[a-z]+", caption.lower())
    result = []
    i = 0
    while i < len(words):
        for length in (3, 2, 1):
            phrase = words[i : i + length]
            last = phrase[-1]
            token = table.get(" ".join(phrase)) or table.get(" ".join([*phrase[:-1], singular(last)]))
            if token and len(phrase) == length:
                result.append(token)
                i += length
                break
        else:
            if words[i] not in STOP_WORDS:
                result.append(singular(words[i]))
            i += 1
    return result


def class_tokens() -> tuple[str, ...]:
    """The tokens of the 182 classes, each once, in the order of the classes."""
    return tuple(dict.fromkeys(c.token for c in coco_stuff()))


def train_vectors(
    captions: Iterable[str],
    label_sentences: Iterable[Sequence[str]] = (),
    config: EmbeddingConfig = EmbeddingConfig(),
    *,
    classes_only: bool = False,
    extra: Mapping[str, str] | None = None,
    progress: Progress = print,
) -> ClassVectors:
    """Skip-gram vectors from captions and, optionally, from lists of the class tokens of an image.

    The class tokens come first, then the most frequent other words. A class token without an example has a zero vector, or
    is left out with `classes_only` (the paper's reduction of captions to class tokens). `extra` are aliases beside those
    of the package. Memory is bounded: captions are streamed, and beyond MAX_VOCABULARY the rarest words go.
    """
    from gensim.models import Word2Vec  # here, because importing gensim takes seconds
    from gensim.models.word2vec import LineSentence

    classes = frozenset(class_tokens())
    table = {**aliases(), **(extra or {})}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "sentences.txt"
        with corpus.open("w", encoding="utf-8") as out:
            number = -1
            for number, caption in enumerate(captions):
                words = tokenise(caption, table)
                if classes_only:
                    words = [w for w in words if w in classes]
                if len(words) > 1:
                    out.write(" ".join(words) + "\n")
                if (number + 1) % 100_000 == 0:
                    progress(f"tokenised {number + 1} captions")
            for tokens in label_sentences:
                if len(tokens) > 1:
                    out.write(" ".join(tokens) + "\n")
        progress(f"tokenised {number + 1} captions; training {config.dim} dimensions, {config.epochs} epochs")
        model = Word2Vec(
            LineSentence(str(corpus)),
            vector_size=config.dim,
            window=config.window,
            negative=config.negative,
            epochs=config.epochs,
            sample=config.sample,
            min_count=config.min_count,
            max_vocab_size=MAX_VOCABULARY,
            sg=1,
            shrink_windows=False,
            seed=config.seed,
            workers=1,  # more than one makes the result depend on timing
            trim_rule=lambda word, _count, _min: 2 if word in classes else 0,  # gensim: 2 keeps, 0 asks min_count
        )
    trained = model.wv
    words = [w for w in trained.index_to_key if w not in classes][: config.keep]
    tokens = [t for t in class_tokens() if t in trained or not classes_only] + words
    matrix = np.zeros((len(tokens), config.dim), np.float32)
    for row, word in enumerate(tokens):
        if word in trained:
            matrix[row] = trained[word]
    progress(
        f"{len(tokens)} vectors, {sum(t in trained for t in class_tokens())} of {len(classes)} class tokens trained"
    )
    return ClassVectors(tokens, matrix, extra)
