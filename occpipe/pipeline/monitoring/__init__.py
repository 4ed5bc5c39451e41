"""What a run says of itself while it works and at its end: statistics, bottleneck, metrics, log.

It imports `core` and the steps. Start at `stage_statistics`.
"""
