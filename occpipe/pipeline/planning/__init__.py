"""What a run will take, before it is paid for: measured rates and the arithmetic over them.

It imports `core` and the steps. Start at `plan`.
"""
