"""The models (`segmenters`, `inpainters`, `relations`), their registry, and the download of their weights.

It imports `core` and `io`. Start with `weights.yaml`, and with `loading`, which makes a model from a config.
"""
