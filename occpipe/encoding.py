"""How a source was stored, as options for Pillow's `save`: what of it is kept, format by format.

Only what describes the picture goes over to the new file. What describes the old bytes (planes, strips, palettes,
offsets, thumbnails) would make it unreadable, or show what was removed.
"""

from __future__ import annotations

import math
import struct
from numbers import Rational
from typing import Any

from PIL import ExifTags, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from occpipe.provenance import MOST_IN_JPEG, SourceType, mark

# TIFF 6.0, section 8 and the index of tags: ImageDescription, Make, Model, Software, DateTime, Artist, Copyright.
_TIFF_TEXTS = (270, 271, 272, 305, 306, 315, 33432)
_TIFF_RESOLUTIONS = (TiffImagePlugin.X_RESOLUTION, TiffImagePlugin.Y_RESOLUTION)
# 32946 is the older number of the same deflate; Pillow writes the newer one. Those not named cannot hold 8-bit RGB.
_TIFF_LOSSLESS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd")
_TIFF_FALLBACK = "tiff_adobe_deflate"
_TIFF_PREDICTED = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd")
_TIFF_JPEG_QUALITY = 95  # the quality of the source is not stored
_WEBP_QUALITY = 92  # the same
_EXIF_POINTERS = frozenset({ExifTags.IFD.MakerNote, ExifTags.IFD.Interop})  # offsets that end when the file changes


def save_options(
    original: ImageFile.ImageFile, source: bytes, mode: str, kind: SourceType = SourceType.NONE
) -> list[dict[str, Any]]:
    """Options for `save`, best first: where one set fails, the next holds the same picture.

    `original` is the decoded source, `source` its bytes and `mode` the Pillow mode of the picture to be saved; `kind` is
    the mark that says it was edited, which a BMP cannot carry.
    """
    keep: dict[str, Any] = {key: original.info[key] for key in ("icc_profile", "dpi") if original.info.get(key)}
    if original.format == "BMP":
        return [{key: value for key, value in keep.items() if key == "dpi"}]
    found = original.info.get("xmp")
    is_jpeg = isinstance(original, JpegImagePlugin.JpegImageFile)  # an MPO is one, too
    xmp = mark(found if isinstance(found, bytes) else b"", kind, MOST_IN_JPEG if is_jpeg else None)
    if isinstance(original, TiffImagePlugin.TiffImageFile):
        return _tiff_options(original, mode, xmp)
    if xmp and original.format == "PNG":
        keep["pnginfo"] = PngImagePlugin.PngInfo()
        keep["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    elif xmp:
        keep["xmp"] = xmp
    exif = original.info.get("exif")
    if exif is None and original.format == "PNG" and len(original.getexif()):
        exif = original.getexif().tobytes()
    if exif:
        keep["exif"] = without_thumbnail(exif)
    if isinstance(original, JpegImagePlugin.JpegImageFile):
        sampling = JpegImagePlugin.get_sampling(original)
        keep |= {"qtables": original.quantization, "subsampling": max(sampling, 0)}
        # libjpeg needs the whole file in one buffer for either, and Pillow's guess of two bytes a pixel can be too low.
        return [{**keep, "optimize": True, "progressive": bool(original.info.get("progressive"))}, keep]
    if original.format == "WEBP":
        keep |= {"lossless": True, "exact": True} if _is_lossless_webp(source) else {"quality": _WEBP_QUALITY}
    return [keep]


def _tiff_options(original: TiffImagePlugin.TiffImageFile, mode: str, xmp: bytes) -> list[dict[str, Any]]:
    """An allow-list of tags, and the compression where it holds this mode; otherwise deflate, which holds all."""
    source = original.tag_v2
    tags: dict[int, Any] = {ExifTags.Base.Orientation: 1}  # explicit, or an orientation in the XMP would count again
    for tag in _TIFF_TEXTS:
        if isinstance(text := source.get(tag), str):
            tags[tag] = text.encode("latin-1", "replace")  # as Pillow read it, so the bytes stay
    for tag in _TIFF_RESOLUTIONS:
        value = source.get(tag)
        if isinstance(value, Rational) and 0 < float(value) < math.inf:  # 0/0 reads as not-a-number
            tags[tag] = float(value)
    if source.get(TiffImagePlugin.RESOLUTION_UNIT) in (1, 2, 3):
        tags[TiffImagePlugin.RESOLUTION_UNIT] = source[TiffImagePlugin.RESOLUTION_UNIT]
    if xmp:
        tags[TiffImagePlugin.XMP] = xmp
    plain: dict[str, Any] = {"compression": _TIFF_FALLBACK, "tiffinfo": tags}
    if isinstance(profile := original.info.get("icc_profile"), bytes):
        plain["icc_profile"] = profile

    compression = original.info.get("compression")
    if compression in ("jpeg", "tiff_jpeg") and mode in ("RGB", "L"):  # alpha must not become lossy
        return [{**plain, "compression": "jpeg", "quality": _TIFF_JPEG_QUALITY}, plain]
    if compression not in _TIFF_LOSSLESS:
        return [plain]
    extra: dict[int, Any] = {}
    if compression in _TIFF_PREDICTED and source.get(TiffImagePlugin.PREDICTOR) == 2:
        extra[TiffImagePlugin.PREDICTOR] = 2
    if compression == "raw":  # libtiff, which compresses, cannot write these through Pillow
        extra |= _exif_ifds(original)
    return [{**plain, "compression": compression, "tiffinfo": tags | extra}, plain]


def _exif_ifds(original: TiffImagePlugin.TiffImageFile) -> dict[int, Any]:
    exif = original.getexif()
    ifds = {}
    for pointer in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        fields = {tag: value for tag, value in exif.get_ifd(pointer).items() if tag not in _EXIF_POINTERS}
        if fields:
            ifds[int(pointer)] = fields
    return ifds


def _is_lossless_webp(source: bytes) -> bool:
    """Whether the picture is a VP8L chunk; profile and EXIF may stand before it, a frame (ANMF) around it.

    Source: RFC 9649, 2.3 to 2.7: chunks of a four-byte name, a little-endian size and a payload padded to even; the
    payload of ANMF has its own chunks after 16 bytes.
    """
    at = 12
    while at + 8 <= len(source):
        name = source[at : at + 4]
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        (size,) = struct.unpack_from("<I", source, at + 4)
        at += 8 + (16 if name == b"ANMF" else size + size % 2)
    return False


def without_thumbnail(exif: bytes) -> bytes:
    """The EXIF block with its thumbnail (IFD1) unlinked and overwritten with zeros, every other byte as it was.

    Source: EXIF 2.32, 4.5.5 and TIFF 6.0: the four bytes after IFD0's entries point to IFD1. A block that cannot be
    parsed comes back unchanged.
    """
    start = 6 if exif.startswith(b"Exif\x00\x00") else 0
    block = bytearray(exif)
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[start : start + 2]))
    if order is None:
        return exif
    try:
        (ifd0,) = struct.unpack_from(f"{order}I", block, start + 4)
        (entries,) = struct.unpack_from(f"{order}H", block, start + ifd0)
        link = start + ifd0 + 2 + 12 * entries
        (ifd1,) = struct.unpack_from(f"{order}I", block, link)
        if ifd1 == 0:
            return exif
        (entries,) = struct.unpack_from(f"{order}H", block, start + ifd1)
        fields = {}
        for index in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHII", block, start + ifd1 + 2 + 12 * index)
            fields[tag] = value
    except struct.error:
        return exif
    offset, length = fields.get(0x0201), fields.get(0x0202)  # JPEGInterchangeFormat and its length
    if offset and length and start + offset + length <= len(block):
        block[start + offset : start + offset + length] = bytes(length)
    struct.pack_into(f"{order}I", block, link, 0)
    return bytes(block)
