"""All that knows Ray: the connection, capacity, the executor with its pools, the crash guard, submitted jobs.

Private names of Ray are used in `local_ray` and `checks` only. Start at `executor`.
"""
