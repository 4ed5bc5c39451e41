from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Concatenate, ParamSpec, TypeVar

import pyarrow as pa
import pytest
import ray
from ray.data import ActorPoolStrategy

from occpipe.core.types import Status
from occpipe.pipeline.ray.crash_guard import MAX_DEATHS, BrokenModelError, BusyTime, CircuitBreaker, Guard, SharedLock
from occpipe.pipeline.ray.journal import MAX_RETURNS, Journal, JournalHandle
from occpipe.stages.rows import Rows

P = ParamSpec("P")
T = TypeVar("T")


class Death(BaseException):
    """Stands for the end of the process: nothing in it may catch this."""


class Here(JournalHandle):
    """A journal in this process."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def call(self, method: Callable[Concatenate[Journal, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self.journal, *args, **kwargs)

    def send(self, method: Callable[Concatenate[Journal, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        self.call(method, *args, **kwargs)


def batch(*rows: int) -> pa.Table:
    shards = pa.array([0] * len(rows), pa.int32())
    return pa.table({"shard": shards, "row": pa.array(rows, pa.int32())})


class Stage:
    """Marks rows unchanged; dies where a batch holds a poisonous one. Notes which ids it was given together."""

    def __init__(self, *poison: int) -> None:
        self.poison = set(poison)
        self.seen: list[list[int]] = []

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = Rows(table, "stage")
        ids = [rows.row(row)["row"] for row in rows.open()]
        self.seen.append(ids)
        if self.poison.intersection(ids):
            raise Death
        for row in rows.open():
            rows.finish(row, Status.UNCHANGED)
        return rows.table()


def until_done(journal: Journal, stage: Stage, table: pa.Table) -> tuple[pa.Table, int]:
    """Repeat a batch in new processes, as Ray does, until one lives; the result, and the number of deaths."""
    for deaths in range(100):
        try:
            return Guard("stage", stage, Here(journal))(table), deaths
        except Death:
            continue
    raise AssertionError("the batch is repeated for ever")


def test_a_batch_without_poison_is_done_at_once() -> None:
    stage = Stage()
    done, deaths = until_done(Journal(), stage, batch(1, 2, 3))
    assert (deaths, stage.seen) == (0, [[1, 2, 3]])
    assert done.column("status").to_pylist() == ["unchanged"] * 3


@pytest.mark.parametrize("poison", [(2,), (1,), (4,), (1, 2), (1, 2, 3, 4)])
def test_poison_ends_as_an_error_row_and_its_neighbours_live(poison: tuple[int, ...]) -> None:
    journal, stage = Journal(), Stage(*poison)
    done, deaths = until_done(journal, stage, batch(1, 2, 3, 4))
    rows = {row["row"]: row for row in done.to_pylist()}
    assert sorted(rows) == [1, 2, 3, 4]
    for key, row in rows.items():
        assert row["status"] == ("error" if key in poison else "unchanged")
        assert row["reason"] == ("crashed" if key in poison else None)
    assert deaths <= MAX_DEATHS * len(poison)
    assert until_done(journal, Stage(), batch(5, 6))[1] == 0, "later batches are not suspected"


def test_the_innocent_survive_a_worker_that_is_killed_from_outside() -> None:
    journal = Journal()
    journal.begin("stage", [1, 2])  # and never finished
    done, deaths = until_done(journal, Stage(), batch(1, 2))
    assert deaths == 0
    assert done.column("status").to_pylist() == ["unchanged"] * 2


def test_stages_do_not_share_their_deaths() -> None:
    journal = Journal()
    journal.begin("segment", [1])
    assert journal.begin("inpaint", [1]).deaths == [0]


def test_rows_that_are_closed_are_not_in_work() -> None:
    rows = Rows(batch(1, 2), "load")
    rows.fail(0, FileNotFoundError("gone"))
    stage = Stage(1)
    done, deaths = until_done(Journal(), stage, rows.table())
    assert (deaths, stage.seen) == (0, [[2]])
    assert done.column("status").to_pylist() == ["error", "unchanged"]


def test_a_run_that_stops_begins_nothing() -> None:
    journal = Journal()
    journal.stop()
    done = Guard("stage", Stage(), Here(journal), skippable=True)(batch(1, 2))
    assert len(done) == 0
    assert {"status", "reason", "error"} <= {*done.column_names}
    assert len(Guard("stage", Stage(), Here(journal))(batch(1, 2))) == 2, "what has begun is finished"


class Model:
    """Fails on some images, in a batch and alone."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)

    def __call__(self, images: list[int]) -> list[int]:
        if self.bad.intersection(images):
            raise RuntimeError("CUDA error")
        return images


class ModelStage:
    """Puts each row through a model, together or alone."""

    def __init__(self, model: CircuitBreaker[int]) -> None:
        self.model = model

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = Rows(table, "stage")
        images = {row: rows.row(row)["row"] for row in rows.open()}
        for row in rows.together_or_alone(images, lambda part: self.model([images[row] for row in part])):
            rows.finish(row, Status.UNCHANGED)
        return rows.table()


def test_one_bad_image_is_an_error_row_and_a_broken_model_is_told_from_it() -> None:
    stage = ModelStage(CircuitBreaker(Model(2, 3), 3))
    assert stage(batch(*range(8))).column("reason").to_pylist().count("stage_failed") == 2
    with pytest.raises(BrokenModelError):
        ModelStage(CircuitBreaker(Model(*range(8)), 3))(batch(*range(8)))


def test_a_block_is_given_back_by_broken_models_some_times_and_ends_as_errors_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave(code: int) -> None:
        raise Death(code)

    monkeypatch.setattr("occpipe.pipeline.ray.crash_guard.os._exit", leave)
    journal = Here(Journal())
    for _ in range(MAX_RETURNS):
        with pytest.raises(Death):
            Guard("stage", ModelStage(CircuitBreaker(Model(*range(8)), 3)), journal)(batch(*range(8)))
    rows = Guard("stage", ModelStage(CircuitBreaker(Model(*range(8)), 3)), journal)(batch(*range(8)))
    assert rows.column("reason").to_pylist() == ["stage_failed"] * 8, "not crashed: it gave its images back"
    fine = Guard("stage", ModelStage(CircuitBreaker(Model(), 3)), journal)(batch(*range(8)))
    assert fine.column("status").to_pylist() == ["unchanged"] * 8


class KilledBy(Guard):
    """On real Ray: the process kills itself at a poisonous image."""

    def __init__(self, journal: JournalHandle, poison: int) -> None:
        self._poison = poison
        super().__init__("stage", self._work, journal)

    def _work(self, table: pa.Table) -> pa.Table:
        ids = table.column("row").to_pylist()
        if self._poison in ids and "status" not in table.column_names:
            os.kill(os.getpid(), signal.SIGKILL)
        rows = Rows(table, "stage")
        for row in rows.open():
            rows.finish(row, Status.UNCHANGED)
        return rows.table()


@pytest.mark.usefixtures("ray_cluster")
def test_on_real_ray_poisonous_images_cost_themselves_only() -> None:
    made = ray.data.from_arrow([batch(*range(start, start + 8)) for start in range(0, 40, 8)]).map_batches(
        KilledBy,
        fn_constructor_args=(JournalHandle(), 17),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0.5,
        compute=ActorPoolStrategy(size=1),
        max_task_retries=-1,
    )
    rows = made.take_all()
    assert sorted(row["row"] for row in rows) == list(range(40))
    assert Counter(row["status"] for row in rows) == {"unchanged": 39, "error": 1}
    assert next(row["reason"] for row in rows if row["row"] == 17) == "crashed"


def test_a_suspect_is_alone_and_others_work_side_by_side() -> None:
    lock, seen = SharedLock(), []
    inside, go_on = Barrier(2), Event()

    def work() -> None:
        with lock.shared():
            inside.wait(5)  # both are in here at once
            go_on.wait(5)
            seen.append("together")

    def suspect() -> None:
        with lock.exclusive():
            seen.append("alone")

    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(work) for _ in range(2)]
        lonely = pool.submit(suspect)
        go_on.set()
        for one in (*others, lonely):
            one.result(5)
    assert seen == ["together", "together", "alone"]


def test_work_that_overlaps_counts_once() -> None:
    """Two blocks, one within the other; then nothing for two seconds, and one more."""
    clock = BusyTime()
    clock.begin(10)
    clock.begin(11)
    assert clock.end(11, 13) == (3, 0)
    assert clock.end(10, 14) == (1, 0)
    clock.begin(16)
    assert clock.end(16, 17) == (1, 2)


def test_blocks_that_are_worked_on_at_once_are_all_counted() -> None:
    journal, stage = Journal(), Stage()
    guard = Guard("stage", stage, Here(journal))
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: guard(batch(2 * n, 2 * n + 1)), range(40)))
    assert [table.column("row").to_pylist() for table in done] == [[2 * n, 2 * n + 1] for n in range(40)]
    assert journal.statistics()["stage"].rows == 80
