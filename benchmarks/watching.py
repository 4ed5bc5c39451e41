"""CPU time of the monitoring: of a worker for each batch, and of the driver for each snapshot.

CPU seconds of the process that tells or looks, so that what else runs on the machine counts for little.
Run: python benchmarks/watching.py [--batches 2000]
"""

from __future__ import annotations

import argparse
import time

import ray

from occpipe.core.config_file import load_config
from occpipe.core.resources import cpu_use, gpu_use
from occpipe.pipeline.monitoring.metrics import Metrics
from occpipe.pipeline.monitoring.monitor import Monitor
from occpipe.pipeline.monitoring.run_result import RunCounts
from occpipe.pipeline.monitoring.stage_statistics import BatchStatistics
from occpipe.pipeline.ray.connection import ray_session
from occpipe.pipeline.ray.journal import Journal, JournalHandle
from occpipe.pipeline.steps import STAGES

LOOKS = 50


def main() -> None:
    """Tell, look, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=2000)
    batches = parser.parse_args().batches
    config = load_config()
    with ray_session(config.ray):
        journal, monitor = JournalHandle(), Monitor(RunCounts(), time.monotonic(), config.placement)
        monitor.total, metrics = batches, Metrics("/benchmark")
        journal.call(Journal.statistics)
        begun = time.process_time()
        for number in range(batches):
            journal.send(
                Journal.report, BatchStatistics(STAGES[number % len(STAGES)], number, 8, 0.1, 0.1, cpu_use(), gpu_use())
            )
        worker_s = time.process_time() - begun
        begun = time.process_time()
        for _ in range(LOOKS):
            stages, free = journal.call(Journal.statistics), ray.available_resources()
            metrics.publish(monitor.snapshot(stages, free, time.monotonic()))
        looked = time.process_time() - begun
    print(
        f"a batch: {1000 * worker_s / batches:.2f} ms of a worker's CPU; "
        f"a look, once a second: {1000 * looked / LOOKS:.1f} ms"
    )


if __name__ == "__main__":
    main()
