from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One real Ray for all tests that need one; `clean_corpus` uses what runs already."""
    from occpipe.core.config_file import load_config
    from occpipe.pipeline.ray.connection import ray_session  # here, so that tests without Ray load none

    with ray_session(load_config().ray):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests are skipped where there is no GPU; torch is only asked if there are such tests."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items:
        import torch

        if not torch.cuda.is_available():
            for item in gpu_items:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
