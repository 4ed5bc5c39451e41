"""All that imports Ray: the connection, capacity, the executor with its pools, the crash guard, submitted jobs.

What is used of Ray beside its public API stands in `private`. Start at `executor`.
"""
