"""What comes from outside and goes there: stores of bytes (`storage`) and files of images (`images`).

It imports `core` only. Start at `storage.base.Store` and `images.decode`.
"""
