"""Parts, commits and what is pending, on a store in memory; then any order of crashes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from occpipe.core.config import Config
from occpipe.core.schemas import MANIFEST, PUBLISHED
from occpipe.core.types import Status
from occpipe.dataset.layout import FIRST, METADATA, SUMS, Layout, manifest_key, run_of, shard_of
from occpipe.dataset.manifest import image_id, write_shard
from occpipe.dataset.parquet import read_parquet
from occpipe.dataset.shards import commit_shard, list_parts, list_shards, pending_rows, read_sums, write_part
from occpipe.dataset.sums import write_sums
from occpipe.io.storage import Store
from tests.helpers.memory import MemoryStore

NAMES = [f"{number}.jpg" for number in range(6)]


def list_images(store: Store, shard: int, names: Sequence[str], etag: Callable[[str], str] = lambda _: "a") -> None:
    images = [{"uri": name, "size": 1, "etag": etag(name)} for name in names]
    write_shard(store, shard, pa.Table.from_pylist(images, MANIFEST))


def rows_of(names: Sequence[str], status: str = "unchanged", etag: str = "a", **more: object) -> pa.Table:
    row = {"status": status, "etag": etag, "config": "c", **more}
    return pa.Table.from_pylist([{"image_id": image_id(name), "uri": name, **row} for name in names], PUBLISHED)


def pending(store: Store, shard: int = 0, retry: str = "none") -> list[str]:
    """Names of the images that are left to do."""
    rows = pending_rows(store, FIRST, shard, list_parts(store, FIRST).get(shard, []), retry).column("row")
    return read_parquet(store, manifest_key(shard), ["uri"]).column("uri").take(rows).to_pylist()  # type: ignore[no-any-return]


def published(store: Store, folder: str = METADATA) -> dict[str, str]:
    """Status by name, of all files of a folder; each image once."""
    found: dict[str, str] = {}
    for shard in sorted(list_shards(store, folder)):
        for row in read_parquet(store, Layout(metadata=folder).rows(shard), ["uri", "status"]).to_pylist():
            assert row["uri"] not in found
            found[row["uri"]] = row["status"]
    return found


def test_names_of_files_are_those_of_their_shard() -> None:
    layout = Layout(2, "metadata.v2")
    assert manifest_key(42) == "manifest/shard-000042.parquet"
    assert layout.rows(42) == "metadata.v2/shard-000042.parquet"
    assert layout.part(42, 3, 512) == "state/v2/parts/shard-000042/000003-00512.parquet"
    assert run_of(layout.part(42, 3, 512)) == 3
    for key in (manifest_key(42), layout.rows(42), layout.open_marker(42), layout.parts(1_234_567)):
        assert shard_of(key) in (42, 1_234_567)
    assert shard_of("metadata/_manifest.json") is shard_of("images/shard-1.jpg") is None


def test_a_part_makes_its_rows_done_and_a_commit_publishes_them() -> None:
    store = MemoryStore()
    list_images(store, 0, NAMES)
    assert pending(store) == NAMES
    write_part(store, FIRST, 1, 0, 0, rows_of(NAMES[:4]))
    assert pending(store) == NAMES[4:]
    assert published(store) == {}
    commit = commit_shard(store, FIRST, 0)
    assert (commit.missing, commit.failed) == (2, 0)
    assert published(store) == dict.fromkeys(NAMES[:4], "unchanged")
    assert list_shards(store, FIRST.all_open) == {0}, "a stopped run leaves the marker"
    assert list_parts(store, FIRST) == {}
    write_part(store, FIRST, 1, 0, 4, rows_of(NAMES[4:]))
    assert commit_shard(store, FIRST, 0) == (0, 0, 0)
    assert published(store) == dict.fromkeys(NAMES, "unchanged")
    assert list_shards(store, FIRST.all_open) == set()


@pytest.mark.parametrize(("retry", "left"), [("none", [2]), ("errors", [1, 2]), ("all", [0, 1, 2])])
def test_what_counts_as_done(retry: str, left: list[int]) -> None:
    store = MemoryStore()
    list_images(store, 0, NAMES[:3])
    write_part(store, FIRST, 1, 0, 0, rows_of(NAMES[:1]))
    write_part(store, FIRST, 1, 0, 1, rows_of(NAMES[1:2], "error", reason="truncated"))
    write_part(store, FIRST, 1, 0, 2, rows_of(NAMES[2:3], "error", reason="unreachable"))
    assert commit_shard(store, FIRST, 0) == (0, 0, 1)
    assert pending(store, retry=retry) == [NAMES[number] for number in left]
    assert list_shards(store, FIRST.all_open) == {0}, "what may pass is done again without asking"


def test_a_changed_image_is_done_again_within_its_shard_and_tells_what_it_had() -> None:
    store = MemoryStore()
    list_images(store, 0, NAMES)
    write_part(store, FIRST, 1, 0, 0, rows_of(NAMES, output="images/x"))
    commit_shard(store, FIRST, 0)
    list_images(store, 0, NAMES, lambda name: "b" if name == NAMES[2] else "a")
    left = pending_rows(store, FIRST, 0, [], "none").to_pylist()
    assert left == [{"row": 2, "earlier": "images/x"}]
    write_part(store, FIRST, 2, 0, 2, rows_of([NAMES[2]], "error", "b", reason="truncated"))
    assert published(store)[NAMES[2]] == "unchanged", "until the commit the earlier row stands"
    assert commit_shard(store, FIRST, 0) == (0, 0, 0)
    assert published(store)[NAMES[2]] == "error"


def test_images_whose_ids_collide_stay_two_images() -> None:
    store = MemoryStore()
    list_images(store, 0, NAMES)
    for run, status in ((1, "unchanged"), (2, "cleaned")):
        write_part(store, FIRST, run, 0, 0, rows_of(NAMES, status, image_id=7))
        commit = commit_shard(store, FIRST, 0)
        assert (commit.missing, commit.failed) == (0, 0)
        assert published(store) == dict.fromkeys(NAMES, status)
    assert pending(store) == []
    assert read_parquet(store, FIRST.rows(0)).column("image_id").to_pylist() == [7] * len(NAMES)


def test_of_several_rows_the_newest_run_counts_and_within_a_run_the_result() -> None:
    store = MemoryStore()
    list_images(store, 0, NAMES[:2])
    write_part(store, FIRST, 1, 0, 0, rows_of(NAMES[:2], "cleaned"))
    write_part(store, FIRST, 2, 0, 0, rows_of(NAMES[:1], "error", reason="truncated"))
    write_part(store, FIRST, 2, 0, 1, rows_of(NAMES[:1], "skipped", reason="too_small"))
    commit_shard(store, FIRST, 0)
    assert published(store) == {NAMES[0]: "skipped", NAMES[1]: "cleaned"}


def test_a_file_does_not_depend_on_how_its_rows_were_cut() -> None:
    files = []
    for cuts in ([0, 6], [0, 1, 6], [0, 3, 4, 6]):
        store = MemoryStore()
        list_images(store, 0, NAMES)
        for start, stop in itertools.pairwise(cuts):
            write_part(store, FIRST, len(cuts), 0, start, rows_of(NAMES[start:stop]))
        commit_shard(store, FIRST, 0)
        files.append(store.read(FIRST.rows(0)))
    assert files[0] == files[1] == files[2]
    rows = pq.read_table(pa.BufferReader(files[0]))
    assert rows.column("image_id").to_pylist() == sorted(map(image_id, NAMES))
    assert rows.schema.field("mask").type == pa.large_string(), "more than 2 GiB of masks may be read at once"


def test_sums_come_from_the_footers() -> None:
    store = MemoryStore()
    box = {"x": 0, "y": 0, "width": 1, "height": 1}
    things = [
        {"label": label, "bbox": box, "verdict": verdict} for label, verdict in (("cat", "remove"), ("dog", "keep"))
    ]
    list_images(store, 0, NAMES[:4])
    write_part(store, FIRST, 1, 0, 0, rows_of(NAMES[:3], "cleaned", objects=things))
    write_part(store, FIRST, 1, 0, 3, rows_of(NAMES[3:4], "error", reason="truncated"))
    list_images(store, 1, NAMES[4:])
    write_part(store, FIRST, 1, 1, 0, rows_of(NAMES[4:]))
    for shard in (0, 1):
        commit_shard(store, FIRST, shard)
    sums = write_sums(store, Config(), [], "in", listed=6)
    assert (sums["images"], sums["listed"], sums["shards"], sums["version"]) == (6, 6, 2, 1)
    assert {status: count for status, count in sums["status"].items() if count} == {
        "cleaned": 3,
        "unchanged": 2,
        "error": 1,
    }
    assert (sums["reasons"], sums["removed"]) == ({"truncated": 1}, {"cat": 3})
    assert json.loads(store.read(SUMS)) == sums
    before = sums["digest"]
    write_part(store, FIRST, 2, 1, 0, rows_of(NAMES[4:5], "skipped", reason="too_small"))
    commit_shard(store, FIRST, 1)
    assert write_sums(store, Config(), [], "in", listed=6)["digest"] != before
    assert [one["rows"] for one in read_sums(store, METADATA).values()] == [4, 2]


def test_a_new_version_takes_the_place_of_the_old_one_once_it_is_whole() -> None:
    store, second = MemoryStore(), Layout(2, "metadata.v2")
    for shard in (0, 1):
        list_images(store, shard, NAMES[3 * shard : 3 * shard + 3])
        write_part(store, FIRST, 1, shard, 0, rows_of(NAMES[3 * shard : 3 * shard + 3]))
        commit_shard(store, FIRST, shard)
    first = write_sums(store, Config(), [], "in", listed=6)
    write_part(store, second, 1, 0, 0, rows_of(NAMES[:3], "skipped", reason="too_small"))
    commit_shard(store, second, 0)
    assert write_sums(store, Config(), [], "in", second, listed=6) == first
    assert published(store) == dict.fromkeys(NAMES, "unchanged")
    write_part(store, second, 1, 1, 0, rows_of(NAMES[3:], "skipped", reason="too_small"))
    commit_shard(store, second, 1)
    assert write_sums(store, Config(), [], "in", second, listed=6)["version"] == 2
    assert published(store) == dict.fromkeys(NAMES, "skipped")
    assert list_shards(store, "metadata.v2") == set()


class Crash(BaseException):
    """The process is gone: nothing catches this."""


class FrailStore(MemoryStore):
    """Its process dies at a change once `left` more have been made; what was changed before stays."""

    left: int | None = None

    def write(self, key: str, data: bytes) -> None:
        self._change()
        super().write(key, data)

    def delete(self, key: str) -> None:
        self._change()
        super().delete(key)

    def _change(self) -> None:
        if self.left == 0:
            raise Crash
        if self.left is not None:
            self.left -= 1


OUTCOMES = (Status.CLEANED, Status.UNCHANGED, Status.SKIPPED)


class Runs(RuleBasedStateMachine):
    """Runs over two shards that write parts, in any order and twice, that commit and die meanwhile, and go on."""

    def __init__(self) -> None:
        super().__init__()
        self.store = FrailStore()
        self.run = 1
        self.tags = dict.fromkeys(NAMES, 0)
        self.rows: dict[str, tuple[int, Status, int]] = {}
        self._list()

    def _list(self) -> None:
        for shard in (0, 1):
            list_images(self.store, shard, NAMES[3 * shard : 3 * shard + 3], lambda name: str(self.tags[name]))

    @rule(chosen=st.sets(st.integers(0, 5), min_size=1), failed=st.booleans(), times=st.integers(1, 2))
    def work(self, chosen: set[int], failed: bool, times: int) -> None:
        """A task writes rows of what is pending, twice where its node was thought dead."""
        for shard in (0, 1):
            names = [NAMES[n] for n in sorted(chosen) if n // 3 == shard and NAMES[n] in pending(self.store, shard)]
            for name in names:
                status = Status.ERROR if failed else OUTCOMES[int(name[0]) % 3]
                row = rows_of([name], status, str(self.tags[name]), reason="truncated" if failed else None)
                for _ in range(times):
                    write_part(self.store, FIRST, self.run, shard, NAMES.index(name) % 3, row)
                self.rows[name] = self.run, status, self.tags[name]

    @rule(name=st.sampled_from(NAMES))
    def change(self, name: str) -> None:
        """An image is replaced, and the listing finds that; a run that goes on begins anew."""
        self.tags[name] += 1
        self.store.write(FIRST.open_marker(NAMES.index(name) // 3), b"")
        self._list()
        self.resume()

    @rule()
    def resume(self) -> None:
        """The run ends, well or not; another one begins."""
        parts = [part for found in list_parts(self.store, FIRST).values() for part in found]
        self.run = 1 + max([self.run, *map(run_of, parts)])

    @rule(shard=st.integers(0, 1), changes=st.none() | st.integers(0, 6))
    def commit(self, shard: int, changes: int | None) -> None:
        """A shard is committed; the process may die after so many changes, and a new run begins."""
        self.store.left = changes
        try:
            commit_shard(self.store, FIRST, shard)
        except Crash:
            self.store.left = None
            self.resume()
        finally:
            self.store.left = None

    @invariant()
    def each_image_is_published_once_at_most(self) -> None:
        """At every moment, and never with a result that nobody wrote."""
        for name, status in published(self.store).items():
            assert status in (*OUTCOMES, Status.ERROR)
            assert name in self.rows

    @invariant()
    def what_is_pending_has_no_row_of_its_present_state(self) -> None:
        """And nothing else is pending."""
        for shard in (0, 1):
            names = NAMES[3 * shard : 3 * shard + 3]
            left = [name for name in names if name not in self.rows or self.rows[name][2] != self.tags[name]]
            assert pending(self.store, shard) == left

    def teardown(self) -> None:
        for shard in (0, 1):
            commit_shard(self.store, FIRST, shard)
        assert published(self.store) == {name: str(status) for name, (_, status, _) in self.rows.items()}


TestRuns = Runs.TestCase
TestRuns.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
