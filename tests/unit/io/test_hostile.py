"""Every hostile file is decoded or refused with a reason, soon, and within a bounded memory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as Pil

from occpipe.core.provenance import SourceType
from occpipe.io.images import ImageError, ImageReason, Limits, decode, encode_like
from occpipe.io.images.jpeg_markers import has_many_scans
from occpipe.io.storage.base import is_safe_key
from tests.helpers.scenes import encoded, gradient
from tests.hostile.blocks import many_scans
from tests.hostile.files import hostile_files

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of what is broken in EXIF, and goes on

LIMITS = Limits()
MEMORY = 3 * 2**30
"""Bytes of address space in which all files are read, one after the other; those of 98 million pixels take most of it."""

FILES = hostile_files()


def read(data: bytes) -> ImageReason | None:
    """Do with a file what the pipeline does; the reason why it was refused, or None. Raises nothing for any file."""
    try:
        rgb = decode(data, LIMITS, max_side=512)
        for kind in (SourceType.NONE, SourceType.COMPOSITE):
            encode_like(rgb, data, LIMITS, kind)
    except ImageError as error:
        return error.reason
    return None


def read_all() -> None:
    """Read every file in this process, within its memory, and print how many; for a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name, data in FILES.items():
        with contextlib.suppress(Exception):  # another test says which file raised what
            try:
                read(data)
            except MemoryError as error:
                raise SystemExit(f"{name}: no memory {error}") from error
    sys.stdout.write(f"{len(FILES)} files\n")


def test_there_are_many_and_all_are_different() -> None:
    assert len({hashlib.sha256(data).digest() for data in FILES.values()}) == len(FILES) >= 220
    assert max(len(data) for data in FILES.values()) < 200_000
    assert {name.rpartition(".")[2].lower() for name in FILES} <= {"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"}


def test_their_names_are_keys_and_fit_on_a_disk(tmp_path: Path) -> None:
    for name, data in FILES.items():
        assert is_safe_key(name), name
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == FILES.keys()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_read_or_refused(name: str) -> None:
    read(FILES[name])


def test_reasons_say_what_is_wrong() -> None:
    wanted = {
        "bomb/PNG 60000 x 60000.png": ImageReason.TOO_MANY_PIXELS,
        "bomb/WebP lossless 16383 x 16383.webp": ImageReason.TOO_MANY_PIXELS,
        "png/animated.png": ImageReason.MULTIPLE_FRAMES,
        "png/16 bit.png": ImageReason.BIT_DEPTH,
        "png/text inflates to 100 MB.png": ImageReason.TRUNCATED,
        "jpeg/CMYK.jpeg": ImageReason.COLOUR_MODEL,
        "jpeg/no end.jpeg": ImageReason.TRUNCATED,
        "png/more transparency than palette.png": ImageReason.STAGE_FAILED,
        "tiff/2,500 pages.tiff": ImageReason.MULTIPLE_FRAMES,
        "liar/html.jpg": ImageReason.NOT_AN_IMAGE,
        "liar/picture with a zip behind.jpg": None,
        "liar/empty.jpg": ImageReason.EMPTY_FILE,
        "size/JPEG 1 x 1.jpg": ImageReason.TOO_SMALL,
        "names/%2e%2e.jpg": None,
    }
    assert {name: read(FILES[name]) for name in wanted} == wanted


@pytest.mark.timeout(300)
def test_all_of_them_are_read_within_a_bounded_memory() -> None:
    command = [sys.executable, "-W", "ignore", "-c", "from tests.unit.io.test_hostile import read_all; read_all()"]
    # Each thread of a BLAS reserves address space, which is what is limited here.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[3],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout == f"{len(FILES)} files\n"


def pillow_decodes(data: bytes) -> bool:
    """Whether Pillow, asked directly and once, decodes the pixels."""
    try:
        with Pil.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def test_a_png_that_pillow_cannot_decode_is_refused() -> None:
    accepted = []
    for name, data in FILES.items():
        if data.startswith(b"\x89PNG") and len(data) < 50_000 and not name.startswith("bomb/"):
            with contextlib.suppress(ImageError):
                decode(data, LIMITS)
                accepted += [] if pillow_decodes(data) else [name]
    assert accepted == []


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    assert read(many_scans(9990, 9990, 1300)) is ImageReason.TOO_COMPLEX
    for progressive in (False, True):
        photo = encoded(gradient(), "JPEG", progressive=progressive)
        assert has_many_scans(photo) is False
        assert read(photo + b"\xff\xda" * 1000) is None, "what stands behind a picture is no scan of it"
        comment = b"\xff\xfe" + (2 + 2000).to_bytes(2, "big") + b"\xff\xda" * 1000
        assert read(photo[:2] + comment + photo[2:]) is None, "nor is what stands in a comment"


def test_scans_are_not_hidden_behind_an_end_in_a_comment() -> None:
    data = many_scans(64, 64, 1300)
    at = data.index(b"\xff\xda")
    assert has_many_scans(data[:at] + b"\xff\xfe\x00\x04\xff\xd9" + data[at:])
    assert not has_many_scans(data[:at] + b"\xff\xd9" + data[at:])
