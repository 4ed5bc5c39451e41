"""The command line, one file for a group of commands. It prints and parses, and decides nothing.

It imports every room. Start at `main`.
"""
