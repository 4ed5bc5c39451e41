from __future__ import annotations

import pytest

from occpipe.pipeline.monitoring.stage_statistics import MAX_BATCHES, BatchStatistics, StageStatistics, Tally
from occpipe.pipeline.monitoring.utilization import Utilization, utilization_between


def test_batches_add_up() -> None:
    tally = Tally()
    tally.add(BatchStatistics("segment", 1, 8, busy_s=2.0, waited_s=0.5, cpu=0.8, gpu=None))
    tally.add(BatchStatistics("segment", 9, 4, busy_s=1.0, waited_s=0.5, cpu=0.4, gpu=0.5))
    (segment,) = tally.sums().values()
    assert (segment.rows, segment.busy_s, segment.waited_s) == (12, 3.0, 1.0)
    assert segment.cpu_s == pytest.approx(0.8 * 2.5 + 0.4 * 1.5)
    assert (segment.known_cpu_s, segment.gpu_s, segment.known_gpu_s) == (4.0, 0.75, 1.5)


def test_a_repeated_batch_costs_seconds_and_brings_no_rows() -> None:
    tally = Tally()
    for _ in range(3):
        tally.add(BatchStatistics("segment", 1, 8, busy_s=2.0))
    tally.add(BatchStatistics("inpaint", 1, 8, busy_s=2.0))
    assert {name: (sums.rows, sums.busy_s) for name, sums in tally.sums().items()} == {
        "segment": (8, 6.0),
        "inpaint": (8, 2.0),
    }


def test_only_the_last_batches_are_remembered() -> None:
    tally = Tally()
    for first in (*range(MAX_BATCHES + 1), 0, MAX_BATCHES):
        tally.add(BatchStatistics("write", first, 1, busy_s=0.0))
    assert tally.sums()["write"].rows == MAX_BATCHES + 2


def test_utilization_is_read_off_two_moments() -> None:
    before = {"load": StageStatistics(64, 1.0), "segment": StageStatistics(32, 10.0, 2.0, 6.0, 12.0)}
    now = {"load": StageStatistics(164, 3.0), "segment": StageStatistics(82, 19.0, 3.0, 14.0, 22.0)}
    utilization = utilization_between(before, now, 10.0, 1000)
    assert utilization["load"] == Utilization(10.0, 0.2, None, 836, None, None)
    assert utilization["segment"] == Utilization(5.0, 0.9, 0.9, 82, 0.8, None)
    assert utilization["relate"] == Utilization(0.0, 0.0, None, 82, None, None)
    assert utilization["write"].queue == 0


def test_no_time_is_no_utilization() -> None:
    assert utilization_between({}, {}, 0.0, 5)["load"] == Utilization(0.0, 0.0, None, 5, None, None)
    assert utilization_between({}, {"write": StageStatistics(9)}, 1.0, 5)["write"].queue == 0, "never below nothing"
