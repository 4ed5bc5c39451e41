"""How a run is observed: stage statistics, utilization, bottleneck, snapshots, metrics, log.

It imports `core` and the steps. Start at `stage_statistics`.
"""
