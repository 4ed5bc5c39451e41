"""The verdicts of people in a run: read from a table, and kept in the output for its workers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from occpipe.core.config import Config
from occpipe.dataset.layout import VERDICTS
from occpipe.io.storage import Store, open_store
from occpipe.models.relations.observations import Verdicts, read_verdicts


@dataclass(slots=True)
class Review:
    """Verdicts of people, with the sha256 of their table; `unknown` are images that were not met among those of a scan."""

    verdicts: Verdicts
    sha256: str
    unknown: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> Review:
        """The verdicts of a CSV; raises ValueError as `read_verdicts`, OSError where it cannot be read."""
        verdicts = read_verdicts(path)
        return cls(verdicts, hashlib.sha256(path.read_bytes()).hexdigest(), set(verdicts))

    def store(self, output: Store) -> StoredVerdicts:
        """Keep the verdicts in an output, where every worker can read them."""
        key = f"{VERDICTS}/{self.sha256[:24]}.json"
        output.write(key, json.dumps(self.verdicts).encode())
        return StoredVerdicts(output.uri, key)

    def digest(self, config: Config) -> str:
        """The digest of the config and these verdicts, as it stands in a row."""
        return hashlib.sha256(f"{config.digest} {self.sha256}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class StoredVerdicts:
    """Verdicts in an output, where each worker reads them once."""

    uri: str
    key: str

    def __call__(self) -> Verdicts:
        return _stored(self)


@cache
def _stored(at: StoredVerdicts) -> Verdicts:
    stored = json.loads(open_store(at.uri).read(at.key))
    return {image: [(thing, belongs) for thing, belongs in votes] for image, votes in stored.items()}
