"""An output on a store: its layout, the manifest, shards, versions and the lock.

It imports `core`, `io` and `models`. Start at `layout`, which names each path of an output.
"""
