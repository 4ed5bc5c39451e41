"""What a file says of itself, read without the code that is tested: by Pillow and by walks of a few lines."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image as Pil
from PIL import ImageFile, IptcImagePlugin, JpegImagePlugin, TiffImagePlugin

_STORAGE = {
    *(
        256,
        257,
        258,
        259,
        262,
        266,
        273,
        277,
        278,
        279,
        284,
        317,
        320,
        322,
        323,
        324,
        325,
        330,
        338,
        339,
        347,
        530,
        532,
    ),
    *(274, 700, 33723, 34377, 34675, 34665, 34853, 0xEA1C, 50000, 33550),
}
_DUBLIN = ("{http://purl.org/dc/elements/1.1/}", "{http://ns.adobe.com/xap/1.0/}")
_RAW = ("Raw profile type exif", "Raw profile type iptc", "Raw profile type 8bim", "XML:com.adobe.xmp")
Facts = dict[str, Any]


def facts(data: bytes) -> Facts:
    """By the names of the table in the docs; what a file has not is not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Pil.open(io.BytesIO(data)) as image:
            image.load()
            found = {**_metadata(image, data), **_look(image, data)}
    return {name: value for name, value in found.items() if value not in (None, {}, b"", [], ())}


def _metadata(image: ImageFile.ImageFile, data: bytes) -> Facts:
    exif = image.getexif()
    resolution = {tag: exif[tag] for tag in (282, 283, 296) if tag in exif and image.format != "TIFF"}
    main = {tag: value for tag, value in exif.items() if tag not in (*_STORAGE, 282, 283, 296)}
    photo = {tag: value for tag, value in exif.get_ifd(0x8769).items() if tag not in (0x927C, 0x9287)}
    info = image.info
    texts = {key: text for key, text in getattr(image, "text", {}).items() if key not in _RAW}
    packet = info.get("xmp")
    iptc = IptcImagePlugin.getiptcinfo(image) if image.format in ("JPEG", "MPO", "TIFF") else None
    if image.format == "PNG":
        iptc = _raw_iptc(info)
    return {
        "EXIF": {**main, **photo} if {**main, **photo} != {0x013C: main.get(0x013C)} else None,
        "GPS": dict(exif.get_ifd(0x8825)),
        "ICC profile": info.get("icc_profile") or _bmp_profile(data),
        "XMP": _properties(packet),
        "extended XMP": _extension(data) if data.startswith(b"\xff\xd8") else None,
        "IPTC": {key: value for key, value in (iptc or {}).items() if key[0] == 2 and key[1] < 200},
        "comment": info.get("comment") if image.format in ("JPEG", "MPO") else None,
        "texts": texts,
        "density": _density(image),
        "density in EXIF": resolution,
    }


def _density(image: Pil.Image) -> Any:
    """Dots an inch across and down; a TIFF is stored upright, so that they may change places."""
    info = image.info
    if "jfif" in info:
        return info["jfif_unit"], info["jfif_density"]
    if image.format == "TIFF":
        return sorted(info["dpi"]) if "dpi" in info else None
    return None if image.format == "JPEG" else info.get("dpi") or info.get("aspect")


def _look(image: Pil.Image, data: bytes) -> Facts:
    found: Facts = {"mode": image.mode, "bit depth": _depth(image, data)}
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        found["transparency"] = np.asarray(image.convert("RGBA"))[..., 3].tobytes()
    if image.mode == "P":
        found["palette"] = bytes(image.getpalette() or ())
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        found |= {
            "progressive": bool(image.info.get("progressive")),
            "chroma subsampling": tuple((layer[1], layer[2]) for layer in image.layer) if image.layers > 1 else None,
            "quantisation tables": [list(image.quantization[layer[3]]) for layer in image.layer],
            "RGB or YCbCr": image.info.get("adobe_transform", 1) if image.layers == 3 else None,
        }
    if image.format == "PNG":
        names = dict(_chunks(data))
        found |= {
            "gamma (gAMA)": names.get(b"gAMA"),
            "chromaticities (cHRM)": names.get(b"cHRM"),
            "rendering intent (sRGB)": names.get(b"sRGB"),
            "code points (cICP)": names.get(b"cICP"),
            "significant bits and background": (names.get(b"sBIT"), names.get(b"bKGD")) if b"sBIT" in names else None,
            "interlacing": "Adam7" if data[28] else None,
        }
    if image.format == "WEBP":
        found["lossless or lossy"] = b"VP8L" in data[:60] or data.find(b"VP8L") > 0
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        found |= {
            "compression": str(image.info["compression"]).replace("tiff_deflate", "tiff_adobe_deflate"),
            "byte order, BigTIFF": data[:4],
            "GeoTIFF": image.tag_v2.get(33550),
        }
    if image.format == "BMP":
        found |= {"header and masks": data[14:18] + data[54:66] if data[14] > 40 else data[14:18]}
    return found


def _depth(image: Pil.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]
    if image.format == "BMP":
        return int(struct.unpack_from("<H", data, 24 if data[14] == 12 else 28)[0])
    return 8


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def _properties(packet: Any) -> dict[str, str] | None:
    """Source, rating and titles of a packet."""
    if not isinstance(packet, bytes) or b"<!DOCTYPE" in packet:
        return None
    try:
        root = ET.fromstring(packet.strip(b"\0"))  # noqa: S314 - our own files
    except ET.ParseError:
        return None
    found: dict[str, str] = {}
    for element in root.iter():
        found |= {name: value for name, value in element.attrib.items() if name.startswith(_DUBLIN)}
        if element.tag.startswith(_DUBLIN) and "Thumbnails" not in element.tag:
            found[element.tag] = "".join(element.itertext())
    return found


def _extension(data: bytes) -> dict[str, str] | None:
    """The properties of the extended packet, if the main one names it and it is whole."""
    parts, at = [], 2
    while data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        block = data[at + 4 : at + 2 + size]
        if block.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
            parts.append(block[35:])
        at += 2 + size
    if not parts or data.count(parts[0][:32]) != len(parts) + 1:
        return None
    whole = b"".join(part[40:] for part in sorted(parts, key=lambda part: part[36:40]))
    return _properties(whole) if len(whole) == int.from_bytes(parts[0][32:36], "big") else None


def _raw_iptc(info: dict[Any, Any]) -> dict[Any, Any] | None:
    """IPTC of a PNG, in a text of digits."""
    text = info.get("Raw profile type iptc") or info.get("Raw profile type 8bim")
    if not isinstance(text, str):
        return None
    block = bytes.fromhex("".join(text.split("\n")[3:]))
    at = block.find(b"8BIM\x04\x04")
    records = block[at + 12 :][: int.from_bytes(block[at + 8 : at + 12], "big")]
    found: dict[Any, Any] = {}
    at = 0
    while at + 5 <= len(records):
        size = int.from_bytes(records[at + 3 : at + 5], "big")
        found[records[at + 1], records[at + 2]] = records[at + 5 : at + 5 + size]
        at += 5 + size
    return found


def _bmp_profile(data: bytes) -> bytes | None:
    if data[:2] != b"BM" or data[14] != 124:
        return None
    start, size = struct.unpack_from("<II", data, 14 + 112)
    return data[14 + start : 14 + start + size]
