"""What the fuzzers share: a guard of time and memory around each input, what came of it, and the findings.

A plain seeded mutator rather than hypothesis: it goes on for as long as it is given, keeps what it found as a file, and
needs no shrinking, since its inputs are small changes of files that have names.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

SUCCESS = "success"
MEMORY = 3 * 2**30
"""Bytes of address space of a fuzzer that runs on its own; what needs more is a finding (MemoryError)."""


class TooSlowError(BaseException):
    """An input took too long; no `except Exception` of the code under test holds it back."""


@dataclass
class Tally:
    """What came of the inputs.

    `patience` are the seconds after which an input is a finding: of CPU time, since the machine may be busy with other
    things. With `keep`, findings are saved there, each under its sha256.
    """

    patience: float
    keep: Path | None = None
    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0

    def attempt(self, data: bytes, work: Callable[[], str]) -> None:
        """Run `work`, which says how it ended (SUCCESS, or why the input was refused); what it raises is a finding.

        The input lies in `keep` as `current` meanwhile, for an input that takes the whole process down.
        """
        if self.keep is not None:
            (self.keep / "current").write_bytes(data)
        self.tried += 1
        started = time.process_time()
        try:
            with _patience(self.patience):
                self.outcomes[work()] += 1
        except (Exception, TooSlowError) as error:  # noqa: BLE001 - finding what is raised is what this is for
            self._found(data, error)
        self.slowest = max(self.slowest, time.process_time() - started)

    def closing_line(self) -> str:
        """Inputs, successes, refusals by reason, findings, and the slowest input."""
        refused = ", ".join(f"{reason} {count}" for reason, count in self.outcomes.most_common() if reason != SUCCESS)
        return (
            f"{self.tried} inputs, {self.outcomes[SUCCESS]} successes, refused: {refused or 'none'}; "
            f"{len(self.findings)} findings, slowest input {self.slowest:.2f} s"
        )

    def _found(self, data: bytes, error: BaseException) -> None:
        digest = hashlib.sha256(data).hexdigest()
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
        if place not in self.findings.values():  # one traceback for each place, and a line for each input
            sys.stdout.write("".join(traceback.format_exception(error, limit=-8)))
        sys.stdout.write(f"finding {digest} {place}: {' '.join(str(error).split())[:200]}\n")
        self.findings[digest] = place
        if self.keep is not None:
            (self.keep / digest).write_bytes(data)


def until(seconds: float) -> Iterator[None]:
    """Yield again and again for so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


def main(fuzz: Callable[[float, int, Path | None], Tally], description: str) -> int:
    """The command line of a fuzzer; the exit code, which is 1 where something was found."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs that are findings")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    tally = fuzz(60 * options.minutes, options.seed, options.keep)
    sys.stdout.write(f"{tally.closing_line()}\n")
    if options.keep is not None:
        (options.keep / "current").unlink(missing_ok=True)
    return 1 if tally.findings else 0


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Raise TooSlowError once the block has used so much CPU time; a call into C is stopped when it comes back."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"more than {seconds:g} seconds")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
