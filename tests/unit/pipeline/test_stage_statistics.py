from __future__ import annotations

import pytest

from occpipe.pipeline.monitoring.stage_statistics import REMEMBERED, BatchDone, Pace, StageFigures, Tally, paces


def test_batches_add_up() -> None:
    tally = Tally()
    tally.add(BatchDone("segment", 1, 8, busy_s=2.0, waited_s=0.5, cpu=0.8, gpu=None))
    tally.add(BatchDone("segment", 9, 4, busy_s=1.0, waited_s=0.5, cpu=0.4, gpu=0.5))
    (segment,) = tally.sums().values()
    assert (segment.rows, segment.busy_s, segment.waited_s) == (12, 3.0, 1.0)
    assert segment.cpu_s == pytest.approx(0.8 * 2.5 + 0.4 * 1.5)
    assert (segment.known_cpu_s, segment.gpu_s, segment.known_gpu_s) == (4.0, 0.75, 1.5)


def test_a_repeated_batch_costs_seconds_and_brings_no_rows() -> None:
    tally = Tally()
    for _ in range(3):
        tally.add(BatchDone("segment", 1, 8, busy_s=2.0))
    tally.add(BatchDone("inpaint", 1, 8, busy_s=2.0))
    assert {name: (sums.rows, sums.busy_s) for name, sums in tally.sums().items()} == {
        "segment": (8, 6.0),
        "inpaint": (8, 2.0),
    }


def test_only_the_last_batches_are_remembered() -> None:
    tally = Tally()
    for first in (*range(REMEMBERED + 1), 0, REMEMBERED):
        tally.add(BatchDone("write", first, 1, busy_s=0.0))
    assert tally.sums()["write"].rows == REMEMBERED + 2


def test_a_pace_is_read_off_two_moments() -> None:
    before = {"load": StageFigures(64, 1.0), "segment": StageFigures(32, 10.0, 2.0, 6.0, 12.0)}
    now = {"load": StageFigures(164, 3.0), "segment": StageFigures(82, 19.0, 3.0, 14.0, 22.0)}
    found = paces(before, now, 10.0, 1000)
    assert found["load"] == Pace(10.0, 0.2, None, 836, None, None)
    assert found["segment"] == Pace(5.0, 0.9, 0.9, 82, 0.8, None)
    assert found["relate"] == Pace(0.0, 0.0, None, 82, None, None)
    assert found["write"].queue == 0


def test_no_time_is_no_pace() -> None:
    assert paces({}, {}, 0.0, 5)["load"] == Pace(0.0, 0.0, None, 5, None, None)
    assert paces({}, {"write": StageFigures(9)}, 1.0, 5)["write"].queue == 0, "never below nothing"
