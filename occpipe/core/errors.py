"""Errors that a user can act on: the CLI prints one line for each and exits with its exit code."""

from __future__ import annotations

INTERRUPTED_EXIT_CODE = 130
"""The exit code of a run that Ctrl-C or SIGTERM stopped, as in shells."""


class OccpipeError(Exception):
    """Base of all errors that occpipe raises on purpose; `exit_code` is that of the CLI."""

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
    """The cluster is too small for the configured pools; the message names what is missing."""

    exit_code = 5


class ClusterError(OccpipeError):
    """The cluster cannot be reached, or a request to it failed."""

    exit_code = 5


class OutputBusyError(OccpipeError):
    """Another run has the lock of the output; the message names it."""

    exit_code = 6


class RunError(OccpipeError):
    """A run ended early, or some images have no row; the same command continues from there."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type if the message is empty, or type and key of a KeyError."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return f"{type(error).__name__} {lines[0]}" if isinstance(error, KeyError) else lines[0]
