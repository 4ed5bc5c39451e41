"""Training and evaluation of the starter models; no job runs it.

It imports `core`, `io` and `models`. Start at `run`.
"""
