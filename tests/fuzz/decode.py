"""Fuzzes what opens images: `python -m tests.fuzz.decode --minutes 5 --seed 0 --keep findings`.

Hostile and valid files are changed a little, and read as the pipeline reads them. An input is either read or refused with
an ImageError; anything else is a finding.
"""

from __future__ import annotations

import random
import struct
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from occpipe.core.provenance import SourceType
from occpipe.io.images import ImageError, Limits, decode, encode_like
from tests.fuzz.tally import SUCCESS, Tally, main, until
from tests.hostile.blocks import EXTENSIONS, MAGIC_PNG, saved, valid
from tests.hostile.files import hostile_files

LIMITS = Limits(max_pixels=2_000_000, min_side=1)
"""Small enough for many inputs a second, and nothing is too small to be tried."""
MOST_BYTES = 60_000
"""Larger files are not mutated: they are bombs, and what they aim at has its tests."""
PATIENCE = 5.0
"""Seconds that one input may take."""

_NUMBERS = (0, 1, 2, 7, 8, 9, 16, 127, 128, 255, 256, 257, 32_767, 32_768, 65_535, 65_536)
_LARGE_NUMBERS = (2**24 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_MODES = {"PNG": ("L", "LA", "P", "RGBA"), "WEBP": ("RGBA",), "TIFF": ("L", "LA", "P", "RGBA"), "BMP": ("L", "P")}


def fuzz(seconds: float, seed: int, keep: Path | None = None) -> Tally:
    """Try mutated files for so many seconds; the same seed gives the same files in the same order."""
    dice = random.Random(seed)
    seeds = seed_files()
    tally = Tally(PATIENCE, keep)
    for _ in until(seconds):
        data = mutated(dice, dice.choice(seeds), dice.choice(seeds))
        side = dice.choice((None, None, 48))
        kind = dice.choice((SourceType.NONE, SourceType.COMPOSITE))
        tally.attempt(data, partial(outcome, data, side, kind))
    return tally


def outcome(data: bytes, side: int | None, kind: SourceType) -> str:
    """Read a file and, where it was decoded at full size, write it anew; SUCCESS, or the reason of its refusal."""
    try:
        rgb = decode(data, LIMITS, max_side=side)
        if side is None:
            encode_like(rgb, data, LIMITS, kind)
    except ImageError as error:
        return error.reason.value
    return SUCCESS


def seed_files() -> list[bytes]:
    """What is mutated: valid files of all formats and modes, several times, and the hostile ones that are not large."""
    good = [valid(fmt) for fmt in EXTENSIONS]
    good += [saved(mode, fmt) for fmt, modes in _MODES.items() for mode in modes]
    return good * 10 + [data for data in hostile_files().values() if 0 < len(data) < MOST_BYTES]


def mutated(dice: random.Random, data: bytes, other: bytes) -> bytes:
    """A file after one to four changes; the checksums of a PNG are mostly mended, or little of it would be read."""
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 4))):
        data = dice.choice(_CHANGES)(dice, data, other)
    return with_checksums(data) if dice.random() < 0.8 else data


def with_checksums(data: bytes) -> bytes:
    """A PNG with the right checksum behind each chunk, as far as its lengths lead; other files as they are."""
    if not data.startswith(MAGIC_PNG):
        return data
    mended, at = bytearray(data), len(MAGIC_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def _flip_bits(dice: random.Random, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16)) if data else 0):
        changed[_place(dice, data)] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _set_number(dice: random.Random, data: bytes, other: bytes) -> bytes:
    size, code = dice.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    number = dice.choice(_NUMBERS + _LARGE_NUMBERS) % 256**size
    at = _place(dice, data)
    return data[:at] + struct.pack(dice.choice("<>") + code, number) + data[at + size :]


def _add_to_number(dice: random.Random, data: bytes, other: bytes) -> bytes:
    size: int = dice.choice((1, 2, 4))
    limit: int = 256**size
    order, at = dice.choice(_ORDERS), _place(dice, data)
    number = int.from_bytes(data[at : at + size], order) + dice.choice((-16, -8, -2, -1, 1, 2, 8, 16))
    return data[:at] + (number % limit).to_bytes(size, order) + data[at + size :]


def _delete_block(dice: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _block(dice, data)
    return data[:start] + data[end:]


def _repeat_block(dice: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _block(dice, data)
    return data[:end] + data[start:end] * dice.choice((1, 1, 2, 8)) + data[end:]


def _insert_block(dice: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _block(dice, other)
    at = _place(dice, data)
    return data[:at] + other[start:end] + data[at:]


def _overwrite_block(dice: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _block(dice, other)
    at = _place(dice, data)
    return data[:at] + other[start:end] + data[at + end - start :]


def _fill_block(dice: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _block(dice, data)
    return data[:start] + dice.choice((b"\x00", b"\xff", b"A")) * (end - start) + data[end:]


def _splice(dice: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: _place(dice, data)] + other[_place(dice, other) :]


def _cut(dice: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: _place(dice, data)]


_CHANGES: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    *(_flip_bits, _flip_bits, _set_number, _set_number, _set_number, _add_to_number, _delete_block, _repeat_block),
    *(_insert_block, _overwrite_block, _fill_block, _splice, _cut),
)


def _place(dice: random.Random, data: bytes) -> int:
    """Somewhere in a file, half of the time near its start, where headers are."""
    end = min(len(data), 200) if dice.random() < 0.5 else len(data)
    return dice.randrange(end) if end else 0


def _block(dice: random.Random, data: bytes) -> tuple[int, int]:
    start = _place(dice, data)
    return start, min(len(data), start + dice.choice((1, 2, 4, 12, 12, 30, 100, 1_000)))


if __name__ == "__main__":
    sys.exit(main(fuzz, "Fuzz decode and encode_like."))
