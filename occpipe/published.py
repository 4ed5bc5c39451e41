"""A published output as a reader sees it: the manifest, and the rows of the files that it names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from occpipe.config import Config, Relations
from occpipe.errors import ConfigError, StorageError, WeightsError, first_line
from occpipe.ledger import read_parquet
from occpipe.models import load_relations
from occpipe.relations import RelationScorer
from occpipe.stages.publish import MANIFEST, METADATA
from occpipe.storage import Store, open_store

ROWS_AT_ONCE = 512
MANY_ROWS = 65_536
"""Rows at a time where only narrow columns are read."""


def relations_at_hand(settings: Relations) -> RelationScorer | None:
    """The scorer of an earlier run; None where its relation file lies on another machine, or is none."""
    try:
        return load_relations(settings)
    except (WeightsError, ConfigError):
        return None


def cut_of_run(config: Config, scorer: RelationScorer | None = None) -> float | None:
    """The relation below which an earlier run removed things; None where only a file says it that cannot be had here.

    That file is read where the policy has no cut and its `scorer` is not given.
    """
    if config.policy.cut is not None:
        return config.policy.cut
    scorer = scorer or relations_at_hand(config.relations)
    return None if scorer is None else scorer.default_cut


class Published:
    """What `clean` has published at `output_uri`. Raises StorageError where there is nothing."""

    def __init__(self, output_uri: str) -> None:
        self.uri = output_uri
        self.store: Store = open_store(output_uri)
        try:
            self.manifest: dict[str, Any] = json.loads(self.store.read(MANIFEST))
        except (FileNotFoundError, ValueError) as error:
            raise StorageError(f"{output_uri}: nothing is published there") from error

    @property
    def config(self) -> Config:
        """The config of the run; StorageError where another version of occpipe wrote it and this one cannot read it."""
        settings = {key: value for key, value in self.manifest["config"].items() if key != "digest"}
        try:
            return Config.model_validate(settings)
        except ValidationError as error:
            raise StorageError(f"{self.uri}: its config is of another version of occpipe") from error

    @property
    def digest(self) -> str:
        """Hex digits of a hash over its rows."""
        sums = "\n".join(file["sha256"] for file in self.manifest["files"])
        return hashlib.sha256(sums.encode()).hexdigest()[:16]

    @property
    def by_id(self) -> RowsById:
        """Its rows, to be looked up."""
        try:
            files = [(f["first_id"], f"{METADATA}/{f['file']}") for f in self.manifest["files"] if f["rows"]]
        except KeyError:
            raise StorageError(
                f"{self.uri}: published by an older occpipe; run the command that made it again"
            ) from None
        return RowsById(self.store.uri, *map(tuple, zip(*files, strict=True))) if files else RowsById(self.store.uri)

    @property
    def relations(self) -> Path | None:
        """The relation file of the run; None = the shipped one."""
        vectors = self.config.relations.vectors
        return None if vectors is None else Path(vectors)

    def open(self, file: str, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
        """One of the files that the manifest names, of which parts are read; these leaf columns come as dictionaries."""
        with self._reading(file):
            source = self.store.open(f"{METADATA}/{file}")
            return pq.ParquetFile(source, read_dictionary=list(dictionaries), pre_buffer=True)

    @contextmanager
    def _reading(self, file: str) -> Iterator[None]:
        """What goes wrong with a file is a StorageError that names it."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{self.uri}/{METADATA}/{file} cannot be read: {first_line(error)}") from error

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows, or some of their columns, file by file."""
        for file in self.manifest["files"]:
            with self._reading(file["file"]), self.open(file["file"]) as opened:
                yield opened.read(columns)

    def batches(self, columns: list[str] | None = None, size: int = ROWS_AT_ONCE) -> Iterator[pa.Table]:
        """The same, at most `size` rows at a time."""
        for file in self.manifest["files"]:
            yield from self.batches_of(file["file"], columns, size)

    def batches_of(self, file: str, columns: list[str] | None = None, size: int = ROWS_AT_ONCE) -> Iterator[pa.Table]:
        """The same of one of the files that the manifest names."""
        with self._reading(file), self.open(file) as opened:
            for batch in opened.iter_batches(size, columns=columns):
                yield pa.Table.from_batches([batch])

    def rows(self, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows as plain values, some hundred in memory at a time."""
        for rows in self.batches(columns):
            yield from rows.to_pylist()


@dataclass(frozen=True, slots=True)
class RowsById:
    """Published rows, to be looked up from any process: files sorted by image_id, with the first id of each.

    A process keeps the files that it used last: some 60 MB each for up to 5 million images, 1 GB for 100 million.
    """

    uri: str
    first_ids: tuple[int, ...] = ()
    files: tuple[str, ...] = ()

    def __call__(self, ids: Sequence[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """The rows of these images, those that there are. Ask for ids that are near each other."""
        wanted = np.sort(np.array(ids, np.int64))
        places = np.searchsorted(np.array(self.first_ids, np.int64), wanted, side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        for place in np.unique(places[places >= 0]):
            table = _file(self.uri, self.files[place])
            here, there = wanted[places == place], table.column("image_id").to_numpy()
            at = np.minimum(np.searchsorted(there, here), len(there) - 1)
            rows = table.take(pa.array(at[there[at] == here])).select(["image_id", *columns])
            found |= {row["image_id"]: row for row in rows.to_pylist()}
        return found


@lru_cache(maxsize=2)
def _file(uri: str, key: str) -> pa.Table:
    return read_parquet(open_store(uri), key).combine_chunks()
