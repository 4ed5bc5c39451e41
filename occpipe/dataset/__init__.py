"""The data set that a run writes: its layout, the manifest of the corpus, shards of rows, lock, versions and reader.

It may import `storage`, `config`, `schemas`, `types` and `errors`, and nothing of the pipeline: no Ray and no torch.
Start with `layout.py`, which names every file of an output, and `shards.py`, which makes rows out of parts.
"""
