"""The models and what finds them: `segmenters`, `inpainters`, `relations`, and the registry of their weights.

It imports `core` and `io`. Start at `loading`, which makes a model from a config, and at `weights.yaml`.
"""
