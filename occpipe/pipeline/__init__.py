"""The job: the list of its steps, what a run is told, how it runs on Ray Data, and what it says of itself.

It may import `stages`, `dataset`, `storage` and what stands below them. Start with `steps.py`, then `run.py`.
Nothing heavy is imported here: Ray comes with the first run that has something to do.
"""

from __future__ import annotations
