"""A published output for its readers: the sums, and the rows of `metadata/*.parquet`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from occpipe.core.config import Config, Relations
from occpipe.core.errors import ConfigError, StorageError, WeightsError, first_line
from occpipe.core.rows import Row
from occpipe.dataset.layout import METADATA, SUMS, shard_of
from occpipe.dataset.parquet import read_footer
from occpipe.dataset.sums import OutputSums
from occpipe.io.storage import Store, open_store
from occpipe.models.loading import load_relations
from occpipe.models.relations import RelationScorer
from occpipe.models.relations.decide import rule_of

ROWS_AT_ONCE = 512
MANY_ROWS = 65_536
"""Rows at a time where only narrow columns are read."""
_THREADS = 16


class PublishedFile(NamedTuple):
    """A file below `metadata/`, its shard, and its rows."""

    name: str
    shard: int
    rows: int


def relations_at_hand(settings: Relations) -> RelationScorer | None:
    """The scorer of an earlier run; None where its relation file lies on another machine, or is none."""
    try:
        return load_relations(settings)
    except (WeightsError, ConfigError):
        return None


def cut_of_run(config: Config, scorer: RelationScorer | None = None) -> float | None:
    """The relation below which an earlier run removed things; None where it stands in a file that is not here.

    That file is read where the policy has no cut and there is no `scorer`.
    """
    if config.policy.cut is not None:
        return config.policy.cut
    scorer = scorer or relations_at_hand(config.relations)
    return None if scorer is None else rule_of(config.policy, scorer, config.segmenter.model).cut


class Published:
    """The published rows and sums at `output_uri`. Raises StorageError where there are none."""

    def __init__(self, output_uri: str) -> None:
        self.uri = output_uri
        self.store: Store = open_store(output_uri)
        try:
            self.manifest: OutputSums = json.loads(self.store.read(SUMS))
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
        return str(self.manifest["digest"])

    @property
    def relations(self) -> Path | None:
        """The relation file of the run; None = the shipped one."""
        vectors = self.config.relations.vectors
        return None if vectors is None else Path(vectors)

    @cached_property
    def files(self) -> tuple[PublishedFile, ...]:
        """The files of its rows, by shard, as they are now."""
        keys = [(shard, entry.key) for entry in self.store.walk(METADATA) if (shard := shard_of(entry.key)) is not None]

        def look(item: tuple[int, str]) -> PublishedFile:
            shard, key = item
            name = key.removeprefix(f"{METADATA}/")
            with self._reading(name):
                return PublishedFile(name, shard, read_footer(self.store, key).num_rows)

        with ThreadPoolExecutor(_THREADS) as pool:
            return tuple(pool.map(look, sorted(keys)))

    def open(self, name: str, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
        """One of its files, of which parts are read; these leaf columns come as dictionaries."""
        with self._reading(name):
            source = self.store.open(f"{METADATA}/{name}")
            return pq.ParquetFile(source, read_dictionary=list(dictionaries), pre_buffer=True)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Turn an error of a file into a StorageError with its name."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{self.uri}/{METADATA}/{name} cannot be read: {first_line(error)}") from error

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows, or some of their columns, file by file."""
        for file in self.files:
            with self._reading(file.name), self.open(file.name) as opened:
                yield opened.read(columns)

    def batches(self, columns: list[str] | None = None, size: int = ROWS_AT_ONCE) -> Iterator[pa.Table]:
        """The same, at most `size` rows at a time."""
        for file in self.files:
            yield from self.batches_of(file.name, columns, size)

    def batches_of(self, name: str, columns: list[str] | None = None, size: int = ROWS_AT_ONCE) -> Iterator[pa.Table]:
        """The same of one of its files."""
        with self._reading(name), self.open(name) as opened:
            for batch in opened.iter_batches(size, columns=columns):
                yield pa.Table.from_batches([batch])

    def rows(self, columns: list[str] | None = None) -> Iterator[Row]:
        """The rows as plain values, some hundred in memory at a time."""
        for rows in self.batches(columns):
            yield from rows.to_pylist()
