"""A published output as a reader sees it: the manifest, and the rows of the files that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from occpipe.config import Config
from occpipe.errors import StorageError, first_line
from occpipe.stages.publish import MANIFEST, METADATA
from occpipe.storage import Store, open_store

ROWS_AT_ONCE = 512


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
    def relations(self) -> Path | None:
        """The relation file of the run; None = the shipped one."""
        vectors = self.config.relations.vectors
        return None if vectors is None else Path(vectors)

    def open(self, file: str, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
        """One of the files that the manifest names, of which parts are read; these leaf columns come as dictionaries."""
        try:
            source = self.store.open(f"{METADATA}/{file}")
            return pq.ParquetFile(source, read_dictionary=list(dictionaries), pre_buffer=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise StorageError(f"{self.uri}/{METADATA}/{file} cannot be read: {first_line(error)}") from error

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows, or some of their columns, file by file."""
        for file in self.manifest["files"]:
            with self.open(file["file"]) as opened:
                yield opened.read(columns)

    def batches(self, columns: list[str] | None = None, size: int = ROWS_AT_ONCE) -> Iterator[pa.Table]:
        """The same, at most `size` rows at a time."""
        for file in self.manifest["files"]:
            with self.open(file["file"]) as opened:
                for batch in opened.iter_batches(size, columns=columns):
                    yield pa.Table.from_batches([batch])

    def rows(self, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows as plain values, some hundred in memory at a time."""
        for rows in self.batches(columns):
            yield from rows.to_pylist()
