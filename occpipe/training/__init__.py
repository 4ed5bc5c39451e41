"""How the starter models are trained and measured; nothing of it runs in a job.

It imports `core`, `io` and `models`. Start at `run`.
"""
