from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
import ray
from occpipe.journal import MAX_DEATHS, Ask, Guard, Journal, asking, start_journal
from ray.data import ActorPoolStrategy

from occpipe.rows import Rows
from occpipe.types import Status


class Death(BaseException):
    """Stands for the end of the process: nothing in it may catch this."""


def local(journal: Journal) -> Ask:
    return lambda method, *arguments: getattr(journal, method)(*arguments)


def batch(*ids: int) -> pa.Table:
    return pa.table({"image_id": pa.array(ids, pa.int64()), "data": [bytes([key]) for key in ids]})


class Stage:
    """Marks rows unchanged; dies where a batch holds a poisonous one. Notes which ids it was given together."""

    def __init__(self, *poison: int) -> None:
        self.poison = set(poison)
        self.seen: list[list[int]] = []

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = Rows(table, "stage")
        ids = [rows.value("image_id", row) for row in rows.open()]
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
            return Guard("stage", stage, local(journal))(table), deaths
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
    rows = {row["image_id"]: row for row in done.to_pylist()}
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
    assert journal.begin("inpaint", [1]) == [0]


def test_rows_that_are_closed_are_not_in_work() -> None:
    rows = Rows(batch(1, 2), "fetch")
    rows.fail(0, FileNotFoundError("gone"))
    stage = Stage(1)
    done, deaths = until_done(Journal(), stage, rows.table())
    assert (deaths, stage.seen) == (0, [[2]])
    assert done.column("status").to_pylist() == ["error", "unchanged"]


def test_a_run_that_stops_begins_nothing() -> None:
    journal = Journal()
    journal.stop()
    done = Guard("stage", Stage(), local(journal), skips=True)(batch(1, 2))
    assert len(done) == 0
    assert {"status", "reason", "error"} <= {*done.column_names}
    assert len(Guard("stage", Stage(), local(journal))(batch(1, 2))) == 2, "what has begun is finished"


class KilledBy(Guard):
    """On real Ray: the process kills itself at a poisonous image."""

    def __init__(self, journal: Any, poison: int) -> None:
        self._poison = poison
        super().__init__("stage", self._work, asking(journal))

    def _work(self, table: pa.Table) -> pa.Table:
        ids = table.column("image_id").to_pylist()
        if self._poison in ids and "status" not in table.column_names:
            os.kill(os.getpid(), signal.SIGKILL)
        rows = Rows(table, "stage")
        for row in rows.open():
            rows.finish(row, Status.UNCHANGED)
        return rows.table()


@pytest.mark.usefixtures("ray_cluster")
def test_on_real_ray_poisonous_images_cost_themselves_only() -> None:
    made = ray.data.from_arrow(batch(*range(40))).map_batches(
        KilledBy,
        fn_constructor_args=(start_journal(), 17),
        batch_size=8,
        batch_format="pyarrow",
        num_cpus=0.5,
        compute=ActorPoolStrategy(size=1),
        max_task_retries=-1,
    )
    rows = made.take_all()
    assert sorted(row["image_id"] for row in rows) == list(range(40))
    assert Counter(row["status"] for row in rows) == {"unchanged": 39, "error": 1}
    assert next(row["reason"] for row in rows if row["image_id"] == 17) == "crashed"
