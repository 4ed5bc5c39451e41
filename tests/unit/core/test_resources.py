"""What a worker says of its node; the GPUs are imitated, for CI has none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from occpipe.core import resources as gauges


class NVMLError(Exception):
    """As NVML's."""


class Nvml:
    """Two GPUs, of which the first computes 40% of the time, and the second 60%; a third has fallen off the bus."""

    NVMLError = NVMLError

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802 - NVML's name
        if index > 1:
            raise NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802 - likewise
        return SimpleNamespace(gpu=(40, 60)[handle])


def test_without_a_gpu_its_use_is_not_known() -> None:
    pytest.importorskip("ray", reason="Ray says which GPUs a worker has")
    assert gauges.gpu_use() is None
    assert gauges._use_of([]) is None


@pytest.mark.parametrize(
    ("ids", "use"), [([0], 0.4), (["1"], 0.6), ([0, 1], 0.5), ([], None), ([2], None), (["MIG-1234"], None)]
)
def test_the_use_of_a_workers_gpus(ids: list[int | str], use: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "_nvml", Nvml)
    found = gauges._use_of(ids)
    assert found is None if use is None else found == pytest.approx(use)


def test_cores_are_a_share() -> None:
    gauges.cpu_use()
    assert 0 <= gauges.cpu_use() <= 1
