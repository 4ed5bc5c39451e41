"""All that knows Ray: the connection, capacity, the executor with its pools, the crash guard, submitted jobs.

Private names of Ray are used in `local_ray`, `checks` and `executor` only. Start at `executor`.
"""
