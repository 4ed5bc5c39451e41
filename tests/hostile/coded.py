"""Hostile PNG, JPEG and WebP files: what their own structure allows to go wrong."""

from __future__ import annotations

import struct
import zlib

from tests.helpers.scenes import encoded, moving
from tests.hostile.blocks import (
    END,
    SIDE,
    START,
    Tag,
    chunk,
    exif,
    frame,
    idat,
    ihdr,
    jpeg,
    jpeg_with,
    long,
    many_scans,
    noisy,
    one_frame,
    png,
    replaced,
    riff,
    saved,
    segment,
    short,
    valid,
    vp8l,
    vp8x,
    webp_chunk,
    webp_chunks,
    zeros_deflated,
)

_XMP_NAME = b"http://ns.adobe.com/xap/1.0/\x00"
_RDF = b'<x xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
_IPTC = b'<y xmlns:a="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"/>'
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
# Behind the version in an index of pictures: one hundred pictures, of which the file has the entry of one, outside it.
_MPO = (4, 1, 100, 0xB002, 7, 16, 50, 0, 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF)


def xmp_blocks() -> dict[str, bytes]:
    """XMP packets that aim at whoever parses them, or searches them."""
    entities = b"".join(b'<!ENTITY e%d "%s">' % (i + 1, b"&e%d;" % i * 10) for i in range(9))
    return {
        "external entity": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        "entities that grow": b'<!DOCTYPE x [<!ENTITY e0 "lol">' + entities + b"]><x>&e9;</x>",
        "not UTF-8": b"<x>\xff\xfe\x80\xc0</x>",
        "no end": b"<x>" * 15_000,
        "orientation out of range": b'<x tiff:Orientation="9"/>',
        "many namespaces": _RDF + _IPTC * 800 + b"</x></rdf:RDF>",
        "quotes without end": _RDF + b" a:DigitalSourceType='" * 2_000 + b"</rdf:RDF>",
    }


def exif_blocks() -> dict[str, bytes]:
    """EXIF blocks that lead a parser round, out of the block, or into large numbers."""
    here = {0x8769: long(8), 0x8825: long(8), 0xA005: long(8), 0x014A: long(8)}
    absurd = {number: Tag(5, 0xFFFF_FFFF, 8) for number in (0x010E, 0x011A, 0x011B, 0x0132)}
    return {
        "64 kB": exif({0x0112: short(6)}, rest=bytes(65_400)),
        "directories are their own": exif(here),
        "next directory is itself": exif({0x0112: short(6)}, following=8),
        "counts without end": exif(absurd),
        "65,535 entries": b"Exif\x00\x00II*\x00" + struct.pack("<IH", 8, 0xFFFF) + bytes(60_000),
        "orientation is a text": exif({0x0112: Tag(2, 4, 0x39393939)}),
        "orientation is a fraction": exif({0x0112: Tag(5, 1, 0)}),
        "orientation has no value": exif({0x0112: Tag(3, 0, 0)}),
        "orientation 65,535": exif({0x0112: short(65_535)}),
        "thumbnail outside": exif({}, 14, directory_of({_THUMBNAIL: long(2**31), _THUMBNAIL_LENGTH: long(2**31)})),
        "thumbnail is the block": exif({}, 14, directory_of({_THUMBNAIL: long(1), _THUMBNAIL_LENGTH: long(40)})),
        "thumbnail of no length": exif({}, 14, directory_of({_THUMBNAIL: long(8)})),
        "directory outside": b"Exif\x00\x00II*\x00" + struct.pack("<I", 0xFFFF_FFF0),
        "unknown byte order": b"Exif\x00\x00XX*\x00" + struct.pack("<I", 8),
        "name alone": b"Exif\x00\x00",
        "BigTIFF": b"Exif\x00\x00II+\x00\x08\x00\x00\x00" + struct.pack("<QQ", 16, 2**63),
    }


def directory_of(tags: dict[int, Tag]) -> bytes:
    """The directory of an EXIF block without what stands before it."""
    return exif(tags)[14:]


def png_files() -> dict[str, bytes]:
    """Chunks that are missing, wrong, too many, or grow when they are unpacked."""
    bomb = zeros_deflated(100)
    frames = struct.pack(">II", 2**31 - 1, 0)
    control = struct.pack(">IIIIIHHBB", 0, 500, 500, 2**31 - 1, 2**31 - 1, 1, 0, 2, 1)
    grey = ihdr(colour=0)
    files = {
        "10,000 chunks": png(*[chunk(b"teSt", bytes([i % 256])) for i in range(10_000)]),
        "5,000 texts": png(*[chunk(b"tEXt", b"key%d\x00value" % i) for i in range(5_000)]),
        "no pixels": png(pixels=b""),
        "empty pixels": png(pixels=chunk(b"IDAT")),
        "no end": png(end=b""),
        "no palette": png(header=ihdr(colour=3)),
        "palette of 257": png(chunk(b"PLTE", bytes(771)), header=ihdr(colour=3), pixels=idat(SIDE)),
        "palette of 2, indices to 63": png(chunk(b"PLTE", bytes(6)), header=ihdr(colour=3), pixels=idat(SIDE)),
        "palette of 4 bytes": png(chunk(b"PLTE", bytes(4)), header=ihdr(colour=3), pixels=idat(SIDE)),
        "palette is empty": png(chunk(b"PLTE"), header=ihdr(colour=3), pixels=idat(SIDE)),
        "more transparency than palette": png(
            chunk(b"PLTE", bytes(6)), chunk(b"tRNS", bytes(300)), header=ihdr(colour=3), pixels=idat(SIDE)
        ),
        "transparency of a byte": png(chunk(b"tRNS", b"\x00")),
        "transparency is empty": png(chunk(b"tRNS"), header=grey, pixels=idat(SIDE)),
        "transparency out of range": png(chunk(b"tRNS", b"\xff" * 6)),
        "grey transparency out of range": png(chunk(b"tRNS", b"\xff\xff"), header=grey, pixels=idat(SIDE)),
        "wrong checksum of the header": png(header=chunk(b"IHDR", ihdr()[8:-4], 0)),
        "wrong checksum of the pixels": png(pixels=chunk(b"IDAT", idat()[8:-4], 0)),
        "header of 12 bytes": png(header=chunk(b"IHDR", ihdr()[8:-5])),
        "header is empty": png(header=chunk(b"IHDR")),
        "two headers": png(ihdr(100, 100)),
        "pixels before the header": png(header=idat(), pixels=ihdr()),
        "colour type 5": png(header=ihdr(colour=5)),
        "bit depth 3": png(header=ihdr(depth=3)),
        "interlace 200": png(header=ihdr(interlace=200)),
        "filter method 9": png(header=chunk(b"IHDR", ihdr()[8:-6] + b"\x09\x00")),
        "filter bytes 200": png(pixels=chunk(b"IDAT", zlib.compress(b"\xc8" * (3 * SIDE + 1) * SIDE))),
        "chunk longer than the file": png(struct.pack(">I", 0x7FFF_FFFF) + b"teSt"),
        "chunk of 4 GB": png(struct.pack(">I", 0xFFFF_FFFF) + b"IDAT"),
        "chunk name is binary": png(chunk(b"\x00\xff\x01\xfe")),
        "pixels in chunks of one byte and of none": png(
            pixels=b"".join(chunk(b"IDAT", idat()[8:-4][i : i + 1]) for i in range(2_000))
        ),
        "pixels are not zlib": png(pixels=chunk(b"IDAT", b"\x00" * 100)),
        "zlib with a dictionary": png(pixels=chunk(b"IDAT", b"\x78\xbb" + bytes(100))),
        "pixels inflate to 100 MB": png(pixels=chunk(b"IDAT", bomb)),
        "profile inflates to 100 MB": png(chunk(b"iCCP", b"profile\x00\x00" + bomb)),
        "text inflates to 100 MB": png(chunk(b"zTXt", b"key\x00\x00" + bomb)),
        "unicode text inflates to 100 MB": png(chunk(b"iTXt", b"key\x00\x01\x00\x00\x00" + bomb)),
        "XMP inflates to 100 MB": png(chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + bomb)),
        "70 texts of 1 MB": png(*[chunk(b"zTXt", b"k%d\x00\x00" % i + zeros_deflated(1)) for i in range(70)]),
        "profile has no name": png(chunk(b"iCCP", b"x" * 90)),
        "profile compressed in a way unknown": png(chunk(b"iCCP", b"name\x00\x09" + zlib.compress(b"x"))),
        "profile is rubbish": png(chunk(b"iCCP", b"name\x00\x00" + zlib.compress(b"\xff" * 500))),
        "EXIF as a text in hex": png(chunk(b"tEXt", b"Raw profile type exif\x00\nexif\n 10\nzzzz")),
        "EXIF as a text that grows": png(chunk(b"zTXt", b"Raw profile type exif\x00\x00" + zeros_deflated(1))),
        "text without a key": png(chunk(b"iTXt", b"\x00" * 5), chunk(b"zTXt"), chunk(b"tEXt")),
        "texts behind the pixels": png(end=chunk(b"zTXt", b"key\x00\x00" + bomb) + chunk(b"IEND")),
        "short gamma": png(chunk(b"gAMA", b"\x00")),
        "short resolution": png(chunk(b"pHYs", b"\x00")),
        "short white point": png(chunk(b"cHRM", b"\x00" * 3)),
        "empty sRGB": png(chunk(b"sRGB")),
        "Apple's own kind": png(header=chunk(b"CgBI", b"\x50\x00\x20\x02") + ihdr()),
        "16 bit": png(header=ihdr(depth=16), pixels=idat(6 * SIDE)),
        "1 bit": png(header=ihdr(depth=1, colour=0), pixels=idat(SIDE // 8)),
        "animated": moving("PNG"),
        "animation of 2 thousand million frames": png(chunk(b"acTL", frames)),
        "animation of no frames": png(chunk(b"acTL", bytes(8))),
        "animation cut": png(chunk(b"acTL", b"\x00\x00")),
        "frame outside the picture": png(chunk(b"acTL", struct.pack(">II", 1, 0)), chunk(b"fcTL", control)),
        "interlaced and cut": (whole := png(header=ihdr(interlace=1)))[: len(whole) - 40],
        "grey and alpha": saved("LA", "PNG"),
    }
    exifs = {f"EXIF {name}": png(chunk(b"eXIf", block[6:])) for name, block in exif_blocks().items()}
    texts = {f"EXIF in hex, {name}": png(_exif_as_text(block)) for name, block in exif_blocks().items()}
    head = b"XML:com.adobe.xmp\x00\x00\x00\x00\x00"
    return (
        files | exifs | texts | {f"XMP {name}": png(chunk(b"iTXt", head + xmp)) for name, xmp in xmp_blocks().items()}
    )


def _exif_as_text(block: bytes) -> bytes:
    """The chunk in which ImageMagick stores EXIF."""
    return chunk(b"zTXt", b"Raw profile type exif\x00\x00" + zlib.compress(b"\nexif\n  10\n" + block.hex().encode()))


def jpeg_files() -> dict[str, bytes]:
    """Segments that lie about their length, their tables, or what follows; scans that never end."""
    data = valid("JPEG")
    scan = data.index(b"\xff\xda")
    behind = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    restarts = encoded(noisy(), "JPEG", restart_marker_blocks=2)
    profile = b"ICC_PROFILE\x00"
    index = b"MPF\x00II*\x00" + struct.pack("<IHHHIIHHIIHHIIHHII", *(8, 3, 0xB000, 7, 4, 0x30303130, 0xB001), *_MPO)
    progressive = encoded(noisy(), "JPEG", progressive=True)
    files = {
        "1,000 scans": many_scans(1000, 1000, 1_000),
        "scans over 16 million pixels": many_scans(4_000, 4_000, 100),
        "progressive and cut": progressive[: len(progressive) // 2] + END,
        "no end": data[:-2],
        "start and end": START + END,
        "1,000 starts": START * 1_000 + data,
        "nothing but fill bytes": START + b"\xff" * 190_000,
        "two pictures": data + data,
        "height 0": jpeg_with(0xC0, frame(128, 0)),
        "width 0": jpeg_with(0xC0, frame(0, 96)),
        "frame of no components": jpeg_with(0xC0, frame(128, 96, 0)),
        "frame of 2 components": jpeg_with(0xC0, frame(128, 96, 2)),
        "frame of 255 components": jpeg_with(0xC0, frame(128, 96, 255)),
        "frame that lacks components": jpeg_with(0xC0, segment(0xC0, frame(128, 96)[4:-6])),
        "frame is empty": jpeg_with(0xC0, segment(0xC0)),
        "no frame": jpeg_with(0xC0, b""),
        "two frames": jpeg(frame(64, 64)),
        "another frame behind the first": jpeg_with(0xC0, frame(128, 96) + frame(4000, 4000)),
        "sampling 0": jpeg_with(0xC0, frame(128, 96, sampling=0)),
        "sampling 15": jpeg_with(0xC0, frame(128, 96, sampling=0xFF)),
        "sampling 4 x 4": jpeg_with(0xC0, frame(128, 96, sampling=0x44)),
        "12 bit": jpeg_with(0xC0, frame(128, 96, kind=0xC1, bits=12)),
        "arithmetic coding": jpeg_with(0xC0, frame(128, 96, kind=0xC9)),
        "progressive arithmetic coding": jpeg_with(0xC0, frame(128, 96, kind=0xCA)),
        "lossless": jpeg_with(0xC0, frame(128, 96, kind=0xC3)),
        "hierarchical": jpeg_with(0xC0, frame(128, 96, kind=0xC5)),
        "baseline called progressive": jpeg_with(0xC0, frame(128, 96, kind=0xC2)),
        "no quantisation": jpeg_with(0xDB, b""),
        "quantisation of zeros": jpeg_with(0xDB, segment(0xDB, b"\x00" + bytes(64))),
        "quantisation table 15": jpeg(segment(0xDB, b"\x0f" + b"\x01" * 64)),
        "quantisation cut": jpeg_with(0xDB, segment(0xDB, b"\x00" + bytes(30))),
        "16 quantisation tables of 16 bit": jpeg(
            *[segment(0xDB, bytes([0x10 | i]) + b"\xff" * 128) for i in range(16)]
        ),
        "no codes": jpeg_with(0xC4, b""),
        "codes of 16 x 255": jpeg_with(0xC4, segment(0xC4, b"\x00" + b"\xff" * 16 + bytes(4_080))),
        "codes of rubbish": jpeg_with(0xC4, segment(0xC4, b"\x00" + bytes(range(200)))),
        "codes of no length": jpeg_with(0xC4, segment(0xC4, b"\x00" + bytes(16))),
        "segment of length 0": jpeg(segment(0xE5, length=0)),
        "segment of length 1": jpeg(segment(0xE5, length=1)),
        "segment longer than the file": jpeg(segment(0xE5, length=65_535))[:60_000],
        "scan before the frame": START + data[scan:behind] + data[2:],
        "scan of no components": replaced(data, scan + 4, b"\x00"),
        "scan of an unknown component": replaced(data, scan + 5, b"\xc8"),
        "scan header is empty": data[:scan] + segment(0xDA) + data[behind:],
        "scan filled with 0xFF": data[:behind] + b"\xff" * 100_000,
        "scan of zeros": data[:behind] + bytes(5_000) + END,
        "100,000 fill bytes before a segment": START + b"\xff" * 100_000 + data[2:],
        "rubbish before a segment": START + b"\xff\xe5\x00\x02" + bytes(100_000) + data[2:],
        "restarts out of order": restarts.replace(b"\xff\xd0", b"\xff\xd5"),
        "restarts missing": jpeg(segment(0xDD, b"\x00\x01")),
        "restarts nobody asked for": data[:behind] + b"\xff\xd3" * 500 + data[behind:],
        "restart interval cut": jpeg(segment(0xDD, b"\x00")),
        "number of lines is 0": data[:-2] + segment(0xDC, b"\x00\x00") + END,
        "CMYK": saved("CMYK", "JPEG"),
        "CMYK called YCCK": saved("CMYK", "JPEG").replace(b"Adobe\x00\x64\x00\x00\x00\x00\x00", b"Adobe" + b"\x02" * 7),
        "Adobe cut": jpeg(segment(0xEE, b"Adobe")),
        "JFIF cut": jpeg_with(0xE0, segment(0xE0, b"JFIF")),
        "JFIF thumbnail that is not there": jpeg_with(
            0xE0, segment(0xE0, b"JFIF\x00\x01\x01\x01\x00\x00\x00\x00\xff\xff")
        ),
        "1,000 comments": jpeg(*[segment(0xFE, b"comment %d" % i) for i in range(1_000)]),
        "profile part 2 of 1": jpeg(segment(0xE2, profile + b"\x02\x01" + bytes(200))),
        "profile part 0 of 0": jpeg(segment(0xE2, profile + b"\x00\x00" + bytes(200))),
        "profile without parts": jpeg(segment(0xE2, profile)),
        "profile of rubbish": jpeg(segment(0xE2, profile + b"\x01\x01" + b"\xff" * 30_000)),
        "profile that claims 4 GB": jpeg(segment(0xE2, profile + b"\x01\x01\xff\xff\xff\xff" + bytes(200))),
        "profile in 255 parts, twice": jpeg(*[segment(0xE2, profile + bytes([i, 255, i])) for i in range(1, 256)] * 2),
        "Photoshop block cut": jpeg(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\x00\x00\xff\xff\xff\xff\x00")),
        "Photoshop block without a name": jpeg(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed")),
        "index of pictures lies": jpeg(segment(0xE2, index)),
        "index of pictures is rubbish": jpeg(segment(0xE2, b"MPF\x00II*\x00\xff\xff\xff\xff")),
        "EXIF in two segments": jpeg(*[segment(0xE1, b"Exif\x00\x00" + b"II*\x00\x08\x00\x00\x00" * 50)] * 2),
    }
    exifs = {f"EXIF {name}": jpeg(segment(0xE1, block)) for name, block in exif_blocks().items()}
    return files | exifs | {f"XMP {name}": jpeg(segment(0xE1, _XMP_NAME + xmp)) for name, xmp in xmp_blocks().items()}


def webp_files() -> dict[str, bytes]:
    """Chunks that lie about sizes and about each other."""
    lossy, lossless = valid("WEBP"), encoded(noisy(), "WEBP", lossless=True)
    alpha, animation = webp_chunks(saved("RGBA", "WEBP")), moving("WEBP")
    plain = webp_chunks(lossy)[b"VP8 "]
    rubbish_alpha = webp_chunk(b"ALPH", b"\x01" + b"\xff" * 50)
    return {
        "extended header cut": riff(webp_chunk(b"VP8X", bytes(3))),
        "extended header alone": riff(vp8x(128, 96)),
        "extended header of another size": riff(vp8x(1000, 1000), plain),
        "extended header twice": riff(vp8x(128, 96), vp8x(64, 64), plain),
        "all flags and no chunk": riff(vp8x(128, 96, 0xFF), plain),
        "animated": animation,
        "animation cut": animation[: len(animation) // 2],
        "animation without frames": riff(vp8x(128, 96, 2), webp_chunk(b"ANIM", bytes(6))),
        "frame outside the picture": riff(
            vp8x(128, 96, 2), webp_chunk(b"ANIM", bytes(6)), webp_chunk(b"ANMF", b"\xff" * 16 + plain)
        ),
        "one frame in a larger picture": one_frame(1_000, 1_000),
        "frame of no length": riff(vp8x(128, 96, 2), webp_chunk(b"ANIM", bytes(6)), webp_chunk(b"ANMF", b"")),
        "alpha of rubbish": riff(vp8x(128, 96, 16), rubbish_alpha, plain),
        "alpha is empty": riff(vp8x(128, 96, 16), webp_chunk(b"ALPH", b""), plain),
        "alpha behind the picture": riff(vp8x(128, 96, 16), plain, rubbish_alpha),
        "alpha of another picture": riff(vp8x(128, 96, 16), *[c for n, c in alpha.items() if n == b"ALPH"], plain),
        "file size 0": riff(plain, size=0),
        "file size 4 GB": riff(plain, size=0xFFFF_FFFF),
        "file size odd": riff(plain, size=len(lossy) - 9),
        "file size too small": riff(plain, size=40),
        "chunk longer than the file": riff(webp_chunk(b"VP8 ", plain[8:], 0x7FFF_FFFF)),
        "chunk of 4 GB": riff(webp_chunk(b"VP8 ", plain[8:], 0xFFFF_FFFF)),
        "10,000 chunks": riff(vp8x(128, 96), plain, *[webp_chunk(b"teSt", b"x")] * 10_000),
        "two pictures": riff(plain, plain),
        "no key frame": riff(replaced(plain, 8, bytes([plain[8] | 1]))),
        "first partition too long": riff(replaced(plain, 9, b"\xff\xff")),
        "picture of rubbish": riff(plain[:18] + b"\xff" * (len(plain) - 18)),
        "lossless picture of rubbish": riff(webp_chunk(b"VP8L", replaced(lossless[20:], 5, b"\xff" * 60))),
        "lossless, version 7": riff(replaced(vp8l(SIDE, SIDE), 12, b"\xff" * 10)),
        "lossless, cache of 15 bits": riff(vp8l(SIDE, SIDE, 0b1111_10)),
        "lossless, transforms without end": riff(vp8l(SIDE, SIDE, 2**60 - 1)),
        "profile of rubbish": riff(vp8x(128, 96, 32), webp_chunk(b"ICCP", b"\xff" * 5_000), plain),
        "a sound": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28),
        **{
            f"EXIF {name}": riff(vp8x(128, 96, 8), plain, webp_chunk(b"EXIF", block))
            for name, block in exif_blocks().items()
        },
        **{
            f"XMP {name}": riff(vp8x(128, 96, 4), plain, webp_chunk(b"XMP ", xmp)) for name, xmp in xmp_blocks().items()
        },
    }
