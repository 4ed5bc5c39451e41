"""A published output as a reader sees it: the manifest, and the rows of the files that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from occpipe.config import Config
from occpipe.errors import StorageError
from occpipe.ledger import read_parquet
from occpipe.stages.publish import MANIFEST, METADATA
from occpipe.storage import Store, open_store


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

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows, or some of their columns, file by file."""
        for file in self.manifest["files"]:
            yield read_parquet(self.store, f"{METADATA}/{file['file']}", columns)

    def rows(self, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows as plain values, one file in memory at a time."""
        for table in self.tables(columns):
            yield from table.to_pylist()
