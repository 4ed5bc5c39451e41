"""TIFF and BigTIFF: Pillow compresses the pixels, and a new directory has the tags of the source.

Sources: TIFF 6.0; the BigTIFF design of libtiff; GeoTIFF 1.1. Pillow cannot write EXIF beside compressed pixels, nor
choose BigTIFF; the directory written here has the byte order and the size of offsets of the source.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image as Pil
from PIL import ImageFile, TiffImagePlugin

from occpipe.core.provenance import mark
from occpipe.io.images import exif, ifd
from occpipe.io.images.ifd import Directory, IfdError, Layout, Value
from occpipe.io.images.iptc import kept_iptc, kept_resources, resource_values
from occpipe.io.images.keeping import Keeping, Source
from occpipe.io.images.palettes import like_palette_of
from occpipe.io.images.pictures import holds_picture
from occpipe.io.images.reasons import ImageError, ImageReason
from occpipe.io.images.xmp import kept_xmp

# 32946 is the older number of the same deflate; Pillow writes the newer one. Other compressions cannot store 8-bit RGB.
_LOSSLESS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd")
_FALLBACK = "tiff_adobe_deflate"
_PREDICTED = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd")
_JPEG_QUALITY = 95  # the quality of the source is not stored

_OFFSETS, _COUNTS = TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS
_SUB_IFDS, _XMP, _IPTC, _RESOURCES, _ICC = 330, 700, 33723, 34377, 34675
_GEO = {33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113}
_LAYOUT = {256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 320, 338, 339, 347, 530, 532}
"""Tags of the storage of pixels, which a new file has of its own."""


def write(picture: Pil.Image, source: Source, keeping: Keeping) -> bytes:
    """A TIFF with the upright picture, in the source's compression if that can store it, and the tags that are kept."""
    layout = ifd.layout_of(source.data)
    before = ifd.read(source.data, layout, ifd.first_offset(source.data, layout), exif.POINTERS)
    if source.image.mode == "P":
        indexed = like_palette_of(picture, source.image)
        if indexed is None:
            keeping.lose("palette")
        picture = indexed or picture
    bits, samples = (before.values.get(tag, Value(3, b"")).integers(layout.order) for tag in (258, 277))
    if bits and min(bits) < 8:
        keeping.lose("bit depth below 8")
    if sum(samples) > len(picture.getbands()):
        keeping.lose("TIFF extra samples")
    data = _compressed(picture, source.image, keeping)
    inner = ifd.layout_of(data)
    pixels = ifd.read(data, inner, ifd.first_offset(data, inner), {})
    strips = [
        data[at : at + size]
        for at, size in zip(*(pixels.values[tag].integers(inner.order) for tag in (_OFFSETS, _COUNTS)), strict=True)
    ]
    after = _kept_directory(before, layout, keeping)
    for tag in _LAYOUT & pixels.values.keys():
        value = pixels.values[tag]
        numbers = value.integers(inner.order)
        after.values[tag] = ifd.integers(layout.order, value.type, *numbers) if numbers and value.type != 1 else value
    return _assembled(after, strips, layout)


def metadata(data: bytes) -> Iterator[bytes]:
    """The metadata of a written TIFF. Raises ImageError if there is more than its picture and one directory."""
    layout = ifd.layout_of(data)
    at = ifd.first_offset(data, layout)
    directory = ifd.read(data, layout, at, exif.POINTERS)
    strips = [*zip(*(directory.values[tag].integers(layout.order) for tag in (_OFFSETS, _COUNTS)), strict=True)]
    ends = [start + size + size % 2 for start, size in strips]
    is_dense = [start for start, _ in strips] == [layout.header, *ends[:-1]] and ends[-1:] == [at]
    if directory.next or not is_dense or ifd.write(directory, layout, at) != data[at:]:
        raise ImageError(ImageReason.EMBEDDED_PICTURE, "a TIFF of more than its picture and one directory")
    allowed = exif.MAIN | _GEO | _LAYOUT | {_OFFSETS, _COUNTS, _XMP, _IPTC, _RESOURCES, _ICC}
    if unknown := directory.values.keys() - allowed:
        raise ImageError(ImageReason.EMBEDDED_PICTURE, f"tags that may be a picture: {sorted(unknown)}")
    yield from (v.data for tag, v in directory.values.items() if tag not in _LAYOUT | {_OFFSETS, _COUNTS, _RESOURCES})
    if _RESOURCES in directory.values:
        yield from resource_values(directory.values[_RESOURCES].data)
    for below in directory.below.values():
        yield from (value.data for value in ifd.every_value(below))


def is_readable_kind(data: bytes) -> bool:
    """Whether a TIFF that Pillow does not open has strips outside of the file; else it is of a kind that is not read."""
    try:
        layout = ifd.layout_of(data)
        values = ifd.read(data, layout, ifd.first_offset(data, layout), {}).values
    except (IfdError, IndexError):
        return True
    for offsets, counts in ((_OFFSETS, _COUNTS), (324, 325)):
        if offsets in values and counts in values:
            places = zip(*(values[tag].integers(layout.order) for tag in (offsets, counts)), strict=False)
            return any(at + size > len(data) for at, size in places)
    return True


def _kept_directory(before: Directory, layout: Layout, keeping: Keeping) -> Directory:
    values = dict(before.values)
    special = {tag: values.pop(tag).data for tag in (_XMP, _IPTC, _RESOURCES, _ICC) if tag in values}
    if values.pop(_SUB_IFDS, None) is not None or _SUB_IFDS in before.broken:
        keeping.lose("TIFF sub-images")
    turned = (*values.get(exif.ORIENTATION, Value(3, b"")).integers(layout.order), 1)[0] >= 5
    if keeping.strips_location:
        values = {tag: value for tag, value in values.items() if tag not in _GEO}
    allowed = exif.RESOLUTION if keeping.strips_all else exif.MAIN | _GEO
    kept = exif.kept_directory(Directory(values, before.below, before.broken), allowed, "TIFF", keeping)
    if turned and {282, 283} <= kept.values.keys():
        kept.values[282], kept.values[283] = kept.values[283], kept.values[282]
    kept.values[exif.ORIENTATION] = ifd.integers(layout.order, ifd.SHORT, 1)  # else that of the XMP is applied again
    blocks = {
        _XMP: mark(kept_xmp(special.get(_XMP, b""), keeping), keeping.mark),
        _IPTC: kept_iptc(special.get(_IPTC, b""), keeping),
        _RESOURCES: kept_resources(special.get(_RESOURCES, b""), keeping),
        _ICC: special.get(_ICC, b""),
    }
    if holds_picture(blocks[_ICC]):
        keeping.lose("ICC profile (a picture)")
        blocks[_ICC] = b""
    kept.values |= {tag: Value(1 if tag == _XMP else 7, block) for tag, block in blocks.items() if block}
    return kept


def _compressed(picture: Pil.Image, original: ImageFile.ImageFile, keeping: Keeping) -> bytes:
    """A TIFF of pixels only; deflate can store every mode."""
    compression = str(original.info.get("compression"))
    attempts: list[dict[str, Any]] = [{"compression": _FALLBACK}]
    if compression in ("jpeg", "tiff_jpeg") and picture.mode in ("RGB", "L"):  # alpha must stay lossless
        attempts.insert(0, {"compression": "jpeg", "quality": _JPEG_QUALITY})
    elif compression in _LOSSLESS:
        predictor = (
            original.tag_v2.get(TiffImagePlugin.PREDICTOR) if isinstance(original, TiffImagePlugin.TiffImageFile) else 1
        )
        info = {TiffImagePlugin.PREDICTOR: 2} if compression in _PREDICTED and predictor == 2 else {}
        attempts.insert(0, {"compression": compression, "tiffinfo": info})
    else:
        keeping.lose(f"compression {compression}")
    picture.info = {}
    for index, options in enumerate(attempts):
        out = io.BytesIO()
        try:
            picture.save(out, "TIFF", **options)
        except (OSError, ValueError, RuntimeError):
            if index == len(attempts) - 1:
                raise
            keeping.lose(f"compression {compression}")
        else:
            break
    return out.getvalue()


def _assembled(directory: Directory, strips: list[bytes], layout: Layout) -> bytes:
    starts, at = [], layout.header
    for strip in strips:
        starts.append(at)
        at += len(strip) + len(strip) % 2
    kind = ifd.LONG8 if layout.big else ifd.LONG
    directory.values[_OFFSETS] = ifd.integers(layout.order, kind, *starts)
    directory.values[_COUNTS] = ifd.integers(layout.order, kind, *map(len, strips))
    magic = b"II" if layout.order == "<" else b"MM"
    number = (43, 8, 0) if layout.big else (42,)
    head = magic + b"".join(n.to_bytes(2, "little" if layout.order == "<" else "big") for n in number) + layout.pack(at)
    padded = (part for strip in strips for part in (strip, b"\0" * (len(strip) % 2)))
    return b"".join([head, *padded, ifd.write(directory, layout, at)])
