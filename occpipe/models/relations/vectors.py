"""Class vectors: one embedding per caption token, looked up by the class names that segmenters use.

A name is looked up unchanged, and as its COCO-Stuff token (`wall-brick` -> `wall`). Then it is tried as an alias (`sofa` ->
`couch`) and as its last word (`floor lamp` -> `lamp`). So a class that is in
no label list still gets the vector of its caption word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occpipe.core.classes import aliases, token
from occpipe.core.tables import read_table

Vectors = NDArray[np.float32]
"""float32, tokens x dimensions."""

FORMAT = "occpipe-relations-1"
"""The format of a relation file, in its metadata."""

STARTER_ASSET = "models/assets/starter-relations.safetensors"


def read_aliases(path: str | Path) -> dict[str, str]:
    """A user's own aliases, CSV with a header and the columns alias, token: `lorry,truck`.

    An alias is one to three words of letters, as in captions. A token is a class token, or a caption word for a class that
    is not in COCO-Stuff. Raises ValueError with the number of the line.
    """
    table = {}
    for number, (alias, word) in read_table(Path(path), ("alias", "token")):
        words = re.findall(r"[a-z]+", alias.lower())
        if " ".join(words) != " ".join(alias.lower().split()) or not 1 <= len(words) <= 3:
            raise ValueError(f"{path}, line {number}: an alias is one to three words of letters a to z, not {alias!r}")
        if not re.fullmatch(r"[a-z]+", word.lower()):
            raise ValueError(f"{path}, line {number}: a token is one word of letters a to z, not {word!r}")
        table[" ".join(words)] = word.lower()
    return table


def singular(word: str) -> str:
    """The singular of a regular English plural, by its ending; other words are returned unchanged."""
    for ending, replacement in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("sses", "ss")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + replacement
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


class ClassVectors:
    """Embeddings by token: `tokens` names the rows of `matrix` (float32, tokens x dimensions).

    `extra` are aliases (name to token) in addition to those of the package.
    """

    def __init__(
        self, tokens: Sequence[str], matrix: NDArray[np.floating[Any]], extra: Mapping[str, str] | None = None
    ) -> None:
        if matrix.ndim != 2 or len(tokens) != len(matrix):
            raise ValueError(f"{len(tokens)} tokens for a matrix of shape {matrix.shape}")
        self.tokens = tuple(tokens)
        self.matrix: Vectors = np.ascontiguousarray(matrix, dtype=np.float32)
        self._rows = {t: i for i, t in enumerate(self.tokens)}
        self._aliases = {**aliases(), **(extra or {})}
        self._keys: dict[str, str | None] = {}

    @classmethod
    def from_word2vec(cls, path: str | Path) -> ClassVectors:
        """Vectors in the format of word2vec, binary if the name ends in `.bin` (or `.bin.gz`), else text.

        The `.kv` and `.model` files of gensim are pickles and could run code, so they are refused with a ValueError.
        """
        path = Path(path)
        suffixes = [s for s in path.suffixes if s != ".gz"]
        if not suffixes or suffixes[-1] not in {".bin", ".txt", ".vec"}:
            raise ValueError(f"{path}: vectors must be in word2vec format (.bin, .txt or .vec)")
        from gensim.models import KeyedVectors  # here, because importing gensim takes seconds

        loaded = KeyedVectors.load_word2vec_format(str(path), binary=suffixes[-1] == ".bin")
        return cls(loaded.index_to_key, loaded.vectors)

    def key(self, name: str) -> str | None:
        """The token with the vector of a class name, or None."""
        if name not in self._keys:
            self._keys[name] = next((c for c in _candidates(name, self._aliases) if c in self._rows), None)
        return self._keys[name]

    def row(self, key: str) -> int:
        """The row of a token of `tokens`."""
        return self._rows[key]

    def __getitem__(self, name: str) -> Vectors:
        """The vector of a class name; ValueError if it is unknown."""
        vector: Vectors = self.matrix[self._rows[self.require(name)]]
        return vector

    def __contains__(self, name: str) -> bool:
        return self.key(name) is not None

    def __len__(self) -> int:
        return len(self.tokens)

    def require(self, name: str) -> str:
        """The token of a class name; ValueError with the name of the class if it is unknown."""
        key = self.key(name)
        if key is None:
            raise ValueError(f"class {name!r} is unknown to the vectors")
        return key


def _candidates(name: str, table: Mapping[str, str]) -> list[str]:
    plain = name.strip().lower().replace("_", " ")
    words = re.findall(r"[a-z0-9]+", plain)
    forms = [plain, token(name), plain.replace(" ", "")]
    if words:
        forms += [" ".join(words), words[-1]] if " " in plain else [words[0]]
    result: list[str] = []
    for form in forms:
        for candidate in (form, table.get(form), singular(form), table.get(singular(form))):
            if candidate:
                # a class token comes before the word itself: captions are stored by token
                result.append(table.get(candidate, candidate))
                result.append(candidate)
    return result


def read_asset(path: str | Path | None = None) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the description of a relation file (.safetensors); without a path, the shipped one.

    Raises ValueError if it is another kind of file, OSError if it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    source = Path(str(files("occpipe").joinpath(STARTER_ASSET))) if path is None else Path(path)
    try:
        with safe_open(str(source), framework="numpy") as opened:
            meta: dict[str, str] = opened.metadata() or {}
            description = json.loads(meta.get("description", "{}"))
            if description.get("format") != FORMAT:
                raise ValueError(f"{source}: not a relation file of occpipe")
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - safe_open is not a mapping
    except SafetensorError as error:
        raise ValueError(f"{source}: not a relation file of occpipe: {error}") from error
    return arrays, description


def check_target(path: Path) -> None:
    """Raise ValueError if a relation file cannot be written or loaded at this path, before hours of training."""
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: a relation file is named *.safetensors")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder")


def write_asset(arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any], path: Path) -> None:
    """Write a relation file, whole or not at all."""
    from safetensors.numpy import save_file

    check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # one metadata entry, because safetensors writes several in a random order
    save_file(dict(arrays), str(partial), {"description": json.dumps(description)})
    partial.chmod(0o644)
    partial.replace(path)
