"""Errors that a user can act on: the CLI prints one line for each and exits with its code."""

from __future__ import annotations

INTERRUPTED_EXIT_CODE = 130
"""What a run ends with that was stopped by Ctrl-C or SIGTERM, as shells have it."""


class OccpipeError(Exception):
    """Base of all errors that occpipe raises on purpose; `exit_code` is what the CLI ends with."""

    exit_code = 1


class ConfigError(OccpipeError):
    """A config file or an override is wrong; the message names the key and the nearest known one."""

    exit_code = 2


class StorageError(OccpipeError):
    """A corpus or an output cannot be reached, read or written."""

    exit_code = 3


class WeightsError(OccpipeError):
    """Weights are missing, do not match their checksum, or their licence was not accepted."""

    exit_code = 4


class CapacityError(OccpipeError):
    """The cluster cannot hold the configured pools; the message says what is missing."""

    exit_code = 5


class ClusterError(OccpipeError):
    """The cluster cannot be reached, or does not do what it was asked for."""

    exit_code = 5


class OutputBusyError(OccpipeError):
    """Another run holds the output; the message names the holder."""

    exit_code = 6


class RunError(OccpipeError):
    """A run broke off, or did not account for every image; the same command goes on from there."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing, or no more than a key."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return f"{type(error).__name__} {lines[0]}" if isinstance(error, KeyError) else lines[0]
