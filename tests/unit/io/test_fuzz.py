"""Each fuzzer runs for two seconds, and tells what it finds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import config, decode
from tests.fuzz.tally import SUCCESS, Tally

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of what is broken in EXIF, and goes on

SECONDS = 2.0


@pytest.fixture(scope="module")
def images() -> Tally:
    return decode.fuzz(SECONDS, seed=0)


@pytest.fixture(scope="module")
def configs() -> Tally:
    return config.fuzz(SECONDS, seed=0)


def test_images_are_read_and_refused(images: Tally) -> None:
    assert images.outcomes[SUCCESS] > 0
    assert images.outcomes["truncated"] > 0
    assert images.outcomes.total() + len(images.findings) == images.tried


def test_configs_are_loaded_and_refused(configs: Tally) -> None:
    assert configs.outcomes[SUCCESS] > 0
    assert configs.outcomes[config.REFUSED] > 0
    assert configs.outcomes.total() + len(configs.findings) == configs.tried


def test_nothing_is_found_in_images(images: Tally) -> None:
    assert images.findings == {}


def test_nothing_is_found_in_configs(configs: Tally) -> None:
    assert configs.findings == {}


def test_a_finding_is_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(patience=0.05, keep=tmp_path)

    def broken() -> str:
        raise LookupError("lost")

    def endless() -> str:
        while True:
            pass

    tally.attempt(b"good", lambda: SUCCESS)
    tally.attempt(b"refused", lambda: "truncated")
    tally.attempt(b"broken", broken)
    tally.attempt(b"endless", endless)
    digests = [hashlib.sha256(data).hexdigest() for data in (b"broken", b"endless")]
    assert [*tally.findings] == digests
    assert [(tmp_path / digest).read_bytes() for digest in digests] == [b"broken", b"endless"]
    assert f"finding {digests[0]} LookupError at test_fuzz.py" in capsys.readouterr().out
    assert tally.closing_line().startswith("4 inputs, 1 successes, refused: truncated 1; 2 findings, slowest input 0.")


def test_the_same_seed_gives_the_same_inputs() -> None:
    seeds = [b"abcdef" * 20, b"ghijkl" * 20]
    first, second = ([decode.mutated(dice, *seeds) for _ in range(50)] for dice in (Random(7), Random(7)))
    assert first == second
    assert len({*first}) > 25


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIDAT" + bytes(20)])
def test_checksums_are_mended_as_far_as_lengths_lead(data: bytes) -> None:
    assert decode.with_checksums(data) == data
