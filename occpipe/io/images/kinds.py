"""Why a file cannot be opened: it is not an image, it is broken, or it is of a kind that occpipe does not read."""

from __future__ import annotations

from occpipe.io.images import bmp, jpeg, png, tiff
from occpipe.io.images.reasons import FORMATS, ImageError, ImageReason

_OTHERS = (
    *((0, b"GIF87a", "GIF"), (0, b"GIF89a", "GIF"), (0, b"8BPS\x00", "Photoshop"), (0, b"\x00\x00\x01\x00", "icon")),
    *((4, b"ftypavif", "AVIF"), (4, b"ftypavis", "AVIF"), (4, b"ftyphei", "HEIF"), (4, b"ftyphev", "HEIF")),
    *((4, b"ftypmif1", "HEIF"), (4, b"ftypmsf1", "HEIF"), (4, b"ftypcrx ", "Canon raw"), (4, b"ftyp", "video")),
    *((0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"), (0, b"\xff\x4f\xff\x51", "JPEG 2000"), (0, b"II\xbc\x01", "JPEG XR")),
    *((0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"), (0, b"\xff\x0a", "JPEG XL"), (0, b"v/1\x01", "OpenEXR")),
    *((0, b"#?RADIANCE", "Radiance"), (0, b"DDS ", "DirectDraw"), (0, b"qoif", "QOI"), (0, b"FORM", "IFF")),
    *((0, b"FUJIFILMCCD-RAW", "Fuji raw"), (0, b"IIRO", "Olympus raw"), (0, b"IIU\x00", "Panasonic raw")),
    *(
        (0, b"SIMPLE  =", "FITS"),
        (0, b"gimp xcf", "GIMP"),
        (0, b"<svg", "SVG"),
        (0, b"%PDF-", "PDF"),
        (0, b"\x8aMNG", "MNG"),
    ),
    *((0, f"P{n}{end}".encode(), "netpbm") for n in range(1, 8) for end in "\n \r"),
)
MIN_BYTES = 16


def open_error(data: bytes, message: str) -> ImageError:
    """The error for a file that Pillow does not open; `message` is the message of Pillow."""
    if data.startswith(b"\xff\xd8\xff"):
        is_broken = jpeg.is_readable_kind(data)
    elif data.startswith(png.MAGIC):
        is_broken = True
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        is_broken = tiff.is_readable_kind(data)
    elif data.startswith(b"BM"):
        is_broken = bmp.is_readable_kind(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        is_broken = True
    else:
        name = next(
            (name for at, magic, name in _OTHERS if data.startswith(magic, at) and len(data) >= MIN_BYTES), None
        )
        if name is None:
            return ImageError(ImageReason.NOT_AN_IMAGE, f"not one of {', '.join(FORMATS)}")
        return ImageError(ImageReason.UNSUPPORTED, f"{name}, and not one of {', '.join(FORMATS)}")
    if is_broken:
        return ImageError(ImageReason.TRUNCATED, f"broken header: {message}")
    return ImageError(ImageReason.UNSUPPORTED, f"a kind of file that is not read: {message}")
