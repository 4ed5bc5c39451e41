"""A run: which steps it has, what is left to do, Ray (`ray`), its progress (`monitoring`), its cost (`planning`).

It imports all rooms below it, and not `analysis`, `training` and `cli`. Start at `steps`, then `run`.
"""

from __future__ import annotations
