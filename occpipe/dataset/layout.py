"""Every path of an output, below its root.

    manifest/shard-000042.parquet               the images of a shard, as they were listed
    metadata/shard-000042.parquet               their published rows
    metadata/_manifest.json                     sums over all shards, models, versions, config
    images/...                                  the written images, by their names in the corpus
    state/listing.parquet                       the shards of the manifest, with their first and last image
    state/passed_over.json                      other objects of the last listing, counted by kind
    state/locks/0-of-1.json                     who is writing
    state/versions/0001.json                    settings, weights and input of a version
    state/verdicts/...                          human verdicts, for the workers of `apply`
    state/v1/parts/shard-000042/000003-00512.parquet   rows that run 3 wrote, from row 512 of the shard on
    state/v1/parts/shard-000042/2c26b46b....bin        cleaned images on their way into a container, named by their sha256
    state/v1/open/shard-000042                  the shard is published, and not all of it is done

A second version is written to `images.v2/`, `metadata.v2/` and `state/v2/`. Once it is whole, its rows move to `metadata/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

METADATA = "metadata"
SUMS = f"{METADATA}/_manifest.json"
MANIFEST = "manifest"
STATE = "state"
LISTING = f"{STATE}/listing.parquet"
PASSED_OVER = f"{STATE}/passed_over.json"
LOCKS = f"{STATE}/locks"
VERSIONS = f"{STATE}/versions"
VERDICTS = f"{STATE}/verdicts"
BLOB = ".bin"
_SHARD = re.compile(r"shard-(\d{6,})(?:\.parquet)?$")


def shard_name(shard: int) -> str:
    """`shard-000042`."""
    return f"shard-{shard:06d}"


def shard_of(key: str) -> int | None:
    """The shard that a file or folder is named after, by the last part of its key; None for any other name."""
    match = _SHARD.fullmatch(key.rpartition("/")[2])
    return int(match[1]) if match else None


def manifest_key(shard: int) -> str:
    """The file with the images of a shard."""
    return f"{MANIFEST}/{shard_name(shard)}.parquet"


def rows_key(shard: int, folder: str = METADATA) -> str:
    """The file with the published rows of a shard."""
    return f"{folder}/{shard_name(shard)}.parquet"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one version of an output; `metadata` is where its rows are published."""

    number: int = 1
    metadata: str = METADATA

    @property
    def images(self) -> str:
        """The folder of its images. Each version has its own, so the published one stays whole meanwhile."""
        return "images" if self.number == 1 else f"images.v{self.number}"

    @property
    def state(self) -> str:
        """The folder of what is not published yet."""
        return f"{STATE}/v{self.number}"

    @property
    def all_parts(self) -> str:
        """The folder of the parts of all shards."""
        return f"{self.state}/parts"

    @property
    def all_open(self) -> str:
        """The folder of the markers of all shards."""
        return f"{self.state}/open"

    def rows(self, shard: int) -> str:
        """The file with the rows of a shard."""
        return rows_key(shard, self.metadata)

    def parts(self, shard: int) -> str:
        """The folder of the parts of a shard."""
        return f"{self.all_parts}/{shard_name(shard)}"

    def part(self, shard: int, run: int, row: int) -> str:
        """The part that a run writes for rows of a shard, the first of which is `row`."""
        return f"{self.parts(shard)}/{run:06d}-{row:05d}.parquet"

    def open_marker(self, shard: int) -> str:
        """The marker of a shard that is published and has something left to do."""
        return f"{self.all_open}/{shard_name(shard)}"


FIRST = Layout()


def run_of(part: str) -> int:
    """The run that wrote a part."""
    return int(part.rpartition("/")[2].partition("-")[0])
