"""source: the manifest as a data source of Ray Data, which knows none that reads a Parquet file in parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from occpipe.schemas import MANIFEST
from occpipe.stages.discover import UNIT_ROWS, Discovery
from occpipe.storage import open_store

MAX_READ_TASKS = 4_096


class ManifestSource(Datasource):  # type: ignore[misc]  # Ray ships no types
    """The manifest as a Ray data source: a task reads a run of row groups, so 64 images or many thousand."""

    def __init__(self, output_uri: str, discovery: Discovery) -> None:
        self._output_uri = output_uri
        self._shards = discovery.shards
        self._rows = discovery.pending

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of the manifest in memory, roughly."""
        return 100 * self._rows

    def get_read_tasks(self, parallelism: int, **_: object) -> list[ReadTask]:  # noqa: ARG002 - sized by rows
        """One task for each run of row groups."""
        units = [(shard.key, group) for shard in self._shards for group in range(-(-shard.rows // UNIT_ROWS))]
        per_task = -(-len(units) // MAX_READ_TASKS)
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [
            ReadTask(_Read(self._output_uri, units[start : start + per_task]), metadata, schema=MANIFEST)
            for start in range(0, len(units), per_task)
        ]


@dataclass(frozen=True, slots=True)
class _Read:
    output_uri: str
    units: list[tuple[str, int]]

    def __call__(self) -> Iterator[pa.Table]:
        store = open_store(self.output_uri)
        for shard, groups in itertools.groupby(self.units, key=lambda unit: unit[0]):
            file = pq.ParquetFile(pa.BufferReader(store.read(shard)))
            for _, group in groups:
                yield file.read_row_group(group)
