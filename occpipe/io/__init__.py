"""Input and output: stores of bytes (`storage`) and files of images (`images`).

It imports `core` only. Start with `storage.base.Store` and `images.decode`.
"""
