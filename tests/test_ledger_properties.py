"""Whatever is interleaved, the published data set holds each image once, with the row that counts."""

from __future__ import annotations

import json

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from occpipe.config import Config
from occpipe.done import IndexWriter, index_rows, load_done
from occpipe.ledger import next_run, read_parquet, write_part
from occpipe.schemas import PUBLISHED
from occpipe.stages.publish import MANIFEST, METADATA, publish
from occpipe.types import Status
from tests.memory import MemoryStore

OUTCOMES = (Status.CLEANED, Status.UNCHANGED, Status.SKIPPED)
# image id -> whether it failed this time; an image that does not fail always ends the same way
ROWS = st.dictionaries(st.integers(-3, 6), st.booleans(), min_size=1, max_size=5)


class Crash(BaseException):
    """The process is gone: nothing catches this."""


class FrailStore(MemoryStore):
    """Its process dies at a write once `left` more have been made; what was written before stays."""

    left: int | None = None

    def write(self, key: str, data: bytes) -> None:
        if self.left == 0:
            raise Crash
        if self.left is not None:
            self.left -= 1
        super().write(key, data)


class Runs(RuleBasedStateMachine):
    """Runs that commit rows in any order and more than once, that die while they publish, and that others go on from."""

    def __init__(self) -> None:
        super().__init__()
        self.store = FrailStore()
        self.run = 1
        self.index = IndexWriter(self.store, 1)
        self.rows: dict[int, tuple[int, Status]] = {}
        self.published: dict[int, Status] = {}

    @rule(rows=ROWS, times=st.integers(1, 2), heard=st.booleans())
    def commit(self, rows: dict[int, bool], times: int, heard: bool) -> None:
        """A task commits its rows, twice where its node was thought dead; the driver may be gone before it hears of it."""
        made = {key: Status.ERROR if failed else OUTCOMES[key % 3] for key, failed in rows.items()}
        for _ in range(times):
            part = write_part(self.store, self.run, table(made))
        if heard:
            self.index.add(index_rows(table(made), part))
        for key, status in made.items():
            run, before = self.rows.get(key, (0, Status.ERROR))
            if run < self.run or before is Status.ERROR:
                self.rows[key] = self.run, status

    @rule()
    def resume(self) -> None:
        """The run ends, well or not; another one begins."""
        self.run = next_run(self.store)
        self.index = IndexWriter(self.store, self.run)

    @rule()
    def write_index(self) -> None:
        """Some time has passed."""
        self.index.flush()

    @rule(writes=st.none() | st.integers(0, 2))
    def publish(self, writes: int | None) -> None:
        """The run publishes, and may die after so many writes."""
        self.store.left = writes
        try:
            publish(self.store, Config(), [], "in")
            self.published = {key: status for key, (_, status) in self.rows.items()}
        except Crash:
            pass
        finally:
            self.store.left = None

    @invariant()
    def a_reader_sees_the_last_publication(self) -> None:
        """All of it, each image once."""
        seen: list[tuple[int, str]] = []
        if self.store.find(MANIFEST):
            for file in json.loads(self.store.read(MANIFEST))["files"]:
                rows = read_parquet(self.store, f"{METADATA}/{file['file']}", ["image_id", "status"])
                seen += zip(*(column.to_pylist() for column in rows.columns), strict=True)
        assert seen == sorted(self.published.items())

    @invariant()
    def a_retry_does_again_what_failed(self) -> None:
        """And nothing else."""
        fine = sorted(key for key, (_, status) in self.rows.items() if status is not Status.ERROR)
        assert load_done(self.store, "errors").ids.tolist() == fine
        assert load_done(self.store, "none").ids.tolist() == sorted(self.rows)


def table(rows: dict[int, Status]) -> pa.Table:
    full = [{"image_id": key, "uri": str(key), "status": status, "config": "c"} for key, status in rows.items()]
    return pa.Table.from_pylist(full, PUBLISHED)


TestRuns = Runs.TestCase
TestRuns.settings = settings(
    max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
