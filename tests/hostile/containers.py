"""Broken and hostile tars and Parquet files: by name, with what is to be found in each."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.containers import JPEG, tar_of

WHOLE = tar_of([("a.jpg", JPEG), ("a.json", b"{}"), ("b.jpg", JPEG), ("c.jpg", JPEG)])
FIRST, SECOND, THIRD, FOURTH = (WHOLE.index(name) for name in (b"a.jpg", b"a.json", b"b.jpg", b"c.jpg"))
"""Where their headers begin."""
END = bytes(1024)
BROKEN, UNSAFE, DUPLICATE, EMPTY = "broken_container", "unsafe_path", "duplicate_name", "no_images"


class Case(NamedTuple):
    """A container, how many images of it can be read, and the name and reason of its fault, with words of it."""

    data: bytes
    images: int
    name: str
    reason: str
    says: str = ""


def block(name: bytes, kind: bytes = tarfile.REGTYPE, size: bytes = b"%011o\0" % 0, link: str = "") -> bytes:
    """A header with a right checksum, whatever it says."""
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, link
    raw = info.tobuf(tarfile.GNU_FORMAT)
    raw = name.ljust(100, b"\0") + raw[100:124] + size + raw[136:148] + b" " * 8 + raw[156:]
    return raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]


def octal(size: int) -> bytes:
    """A size as headers have it; a large one in base 256."""
    return b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")


def whole(data: bytes) -> bytes:
    """Data up to the end of a block."""
    return data + bytes(-len(data) % 512)


def behind(data: bytes, size: int = 0) -> bytes:
    """A tar with one image and what follows it."""
    return WHOLE[:SECOND] + data + bytes(size) + END


def pax(name: str, **records: str) -> bytes:
    """An image with records of a pax header."""
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = len(JPEG), records
    return info.tobuf(tarfile.PAX_FORMAT) + whole(JPEG)


def extended(kind: bytes, body: bytes) -> bytes:
    """A header that extends the next one, and that."""
    return (
        block(b"extension", kind, octal(len(body))) + whole(body) + block(b"x.jpg", size=octal(len(JPEG))) + whole(JPEG)
    )


def _tars() -> dict[str, Case]:
    cuts = (1, 100, 511, THIRD + 1, THIRD + 511, THIRD + 512, THIRD + 700, THIRD + 511 + len(JPEG))
    cases = {f"cut at {cut}": Case(WHOLE[:cut], int(cut > THIRD), "", BROKEN) for cut in cuts}
    for number, (at, images) in enumerate(((FIRST, 0), (SECOND, 1), (THIRD, 1), (FOURTH, 2))):
        data = WHOLE[: at + 5] + b"!" + WHOLE[at + 6 :]
        cases[f"a wrong checksum of header {number}"] = Case(data, images, "", BROKEN, f"at byte {at}: no header")
    for name in (
        "../o.jpg",
        "/etc/o.jpg",
        "a/../../o.jpg",
        "a\\..\\o.jpg",
        "C:/o.jpg",
        "a//b.jpg",
        "a\x07.jpg",
        "../o",
    ):
        data = tar_of([("a.jpg", JPEG), (name, JPEG), ("b.jpg", JPEG)])
        cases[f"the name {name!r}"] = Case(data, 2, name, UNSAFE, "could leave a folder")
    for what, kind in {"symbolic": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}.items():
        cases[f"a {what} link"] = Case(
            behind(block(b"x.jpg", kind, link="/etc/passwd")), 1, "x.jpg", UNSAFE, "/etc/passwd"
        )
    for what, kind in {"pipe": tarfile.FIFOTYPE, "terminal": tarfile.CHRTYPE, "disk": tarfile.BLKTYPE}.items():
        cases[f"a {what}"] = Case(behind(block(b"x.jpg", kind)), 1, "x.jpg", UNSAFE, "a device or a pipe")
    cases["a folder that leads out"] = Case(behind(block(b"../x", tarfile.DIRTYPE)), 1, "../x", UNSAFE)
    for size in (len(JPEG) + 2048, 2 << 30, 8 << 40, 1 << 62):
        data = behind(block(b"bomb.jpg", size=octal(size)) + whole(JPEG))
        cases[f"a member that claims {size} bytes"] = Case(data, 1, "", BROKEN, f"bomb.jpg' has {size} bytes")
    for packer, magic in {"bzip2": b"BZh9", "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd"}.items():
        cases[f"packed with {packer}"] = Case(magic + bytes(2000), 0, "", BROKEN, f"packed with {packer}")
    for what, claim in {"negative": b"\xff" * 12, "no number": b"0000000zzzz\0", "no digit": b"-0000000001\0"}.items():
        cases[f"a size that is {what}"] = Case(behind(block(b"x.jpg", size=claim)), 1, "", BROKEN)
    for what, body in {
        "length": b"9999999999 path=x\n",
        "short length": b"1 path=x\n",
        "letter for a length": b"x path=x\n",
        "record without a value": b"7 path\n",
    }.items():
        cases[f"a pax header with a wrong {what}"] = Case(behind(extended(tarfile.XHDTYPE, body)), 1, "", BROKEN, "pax")
    return cases | {
        "nothing": Case(b"", 0, "", BROKEN, "it is empty"),
        "packed with gzip": Case(gzip.compress(WHOLE) + bytes(512), 0, "", BROKEN, "packed with gzip"),
        "text": Case(b"this is no tar" * 100, 0, "", BROKEN, "at byte 0: no header"),
        "a picture": Case(whole(JPEG), 0, "", BROKEN, "at byte 0: no header"),
        "zeros, then a tar": Case(bytes(512) + WHOLE, 0, "", EMPTY),
        "only an end mark": Case(tar_of([]), 0, "", EMPTY),
        "only captions": Case(tar_of([("a.txt", b"a")]), 0, "", EMPTY),
        "two of one name": Case(tar_of([("a.jpg", JPEG), ("a.jpg", JPEG)]), 1, "a.jpg#2", DUPLICATE),
        "two of one name, one with a dot": Case(tar_of([("a.jpg", JPEG), ("./a.jpg", JPEG)]), 1, "./a.jpg", DUPLICATE),
        "two captions of one name": Case(tar_of([("a.jpg", JPEG), ("t", b""), ("t", b"")]), 1, "t", DUPLICATE),
        "a name of 3 MB": Case(
            behind(extended(tarfile.GNUTYPE_LONGNAME, b"x" * 3_000_000)), 1, "", BROKEN, "a header of 3000000 bytes"
        ),
        "long names without an end": Case(
            behind(b"".join([block(b"n", tarfile.GNUTYPE_LONGNAME, octal(512)) + b"x" * 512] * 1_000)), 1, "", BROKEN
        ),
        "a long name that is cut": Case(
            behind(block(b"n", tarfile.GNUTYPE_LONGNAME, octal(90_000)) + bytes(700)), 1, "", BROKEN, "is cut off"
        ),
        "an extension without a member": Case(
            WHOLE[:SECOND] + block(b"n", tarfile.GNUTYPE_LONGNAME, octal(3)) + whole(b"abc"), 1, "", BROKEN, "cut off"
        ),
        "a sparse file": Case(behind(block(b"x.jpg", tarfile.GNUTYPE_SPARSE)), 1, "", BROKEN, "sparse"),
        "a sparse file of pax": Case(behind(pax("x.jpg", **{"GNU.sparse.major": "1"})), 1, "", BROKEN, "sparse"),
        "a size of pax that is too large": Case(behind(pax("x.jpg", size=str(9 << 40))), 1, "", BROKEN),
        "a size of pax that is negative": Case(behind(pax("x.jpg", size="-1")), 1, "", BROKEN, "no number"),
        "a path of pax that leads out": Case(behind(pax("x.jpg", path="../x.jpg")), 1, "../x.jpg", UNSAFE),
        "a global header that names files": Case(
            behind(extended(tarfile.XGLTYPE, b"14 path=evil/\n")), 1, "", BROKEN, "global"
        ),
        "a name that is no UTF-8": Case(
            behind(block(b"\xe9.jpg", size=octal(len(JPEG))) + whole(JPEG)), 1, "\\udce9.jpg", UNSAFE
        ),
        "a part of 300 bytes": Case(
            behind(block(b"x" * 100, size=octal(0)).replace(b"ustar  \0", b"ustar\x0000")), 1, "", BROKEN
        ),
    }


def parquet_of(table: pa.Table, **options: int | str) -> bytes:
    """A table as the bytes of a file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _parquet() -> dict[str, Case]:
    data = parquet_of(pa.table({"image": [JPEG * 50] * 40}), row_group_size=10, compression="snappy")
    return {
        "nothing": Case(b"", 0, "", BROKEN),
        "text": Case(b"this is no Parquet file" * 10, 0, "", BROKEN),
        "no footer": Case(data[:-200], 0, "", BROKEN),
        "only a footer": Case(data[-200:], 0, "", BROKEN),
        "a footer of 2 GB": Case(data[:-8] + b"\xff\xff\xff\x7fPAR1", 0, "", BROKEN),
        "a footer of noise": Case(data[:-108] + b"\x5a" * 100 + data[-8:], 0, "", BROKEN),
        "no column of images": Case(
            parquet_of(pa.table({"url": ["https://example.org/a.jpg"]})), 0, "", BROKEN, "no column"
        ),
        "numbers": Case(parquet_of(pa.table({"image": [1, 2]})), 0, "", BROKEN, "no column of images"),
        "lists of images": Case(
            parquet_of(pa.table({"images": [[b"a"], [b"b"]]})), 0, "", BROKEN, "no column of images"
        ),
        "no rows": Case(parquet_of(pa.table({"image": pa.array([], pa.binary())})), 0, "", EMPTY),
        "too many rows": Case(parquet_of(pa.table({"image": [b""] * ((1 << 18) + 1)})), 0, "", BROKEN, "the limit is"),
    }


TARS, PARQUET = _tars(), _parquet()
