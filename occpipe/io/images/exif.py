"""Rewrites an EXIF block from an allow-list of tags: no thumbnail, no maker note, no unknown tag.

Source: EXIF 3.0, tables 4 to 17. A maker note has a private layout, and many contain a preview, so none is kept.
"""

from __future__ import annotations

from occpipe.io.images import ifd
from occpipe.io.images.ifd import Directory, IfdError, Layout, Value
from occpipe.io.images.keeping import Keeping
from occpipe.io.images.pictures import holds_picture

EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005
POINTERS: dict[int, dict[int, dict[int, object]]] = {EXIF: {INTEROP: {}}, GPS: {}}
ORIENTATION = 0x0112
_PREFIX = b"Exif\x00\x00"
_MAKER_NOTE = 0x927C
# Tags of the old pixels, of thumbnails, and padding: their loss is not reported.
_STORAGE = {
    *(0x00FE, 0x00FF, *range(0x0100, 0x0108), 0x010A, 0x0111, 0x0115, 0x0116, 0x0117, 0x011C, 0x013D, 0x0140),
    *(0x0142, 0x0143, 0x0144, 0x0145, 0x0152, 0x0153, 0x015B, *range(0x0200, 0x020A), 0x0212, 0xEA1C),
}
_CONTENT_CREDENTIALS = 0xCD41

TEXTS = {0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298}
"""DocumentName, ImageDescription, Make, Model, Software, DateTime, Artist, HostComputer, Copyright."""
RESOLUTION = {0x011A, 0x011B, 0x0128}
_COLOUR = {0x012D, 0x013E, 0x013F, 0x0211, 0x0213, 0x0214}
_RATING = {0x4746, 0x4749}
_WINDOWS = {0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}  # title, comment, author, keywords, subject
MAIN = {ORIENTATION, *TEXTS, *RESOLUTION, *_COLOUR, *_RATING, *_WINDOWS}
_PHOTO = {
    *(0x829A, 0x829D, 0x8822, 0x8824, 0x8827, 0x8828),  # exposure, f-number, programme, sensitivity, OECF
    *range(0x8830, 0x8836),  # kinds of sensitivity
    *(0x9000, 0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9101, 0x9102),  # version, dates, time zones, components
    *range(0x9201, 0x920B),  # shutter, aperture, brightness, bias, distance, metering, light, flash, focal length
    *(0x9214, 0x9286, 0x9290, 0x9291, 0x9292),  # subject area, user comment, fractions of seconds
    *range(0x9400, 0x9406),  # temperature, humidity, pressure, depth, acceleration, elevation of the camera
    *range(0xA000, 0xA004),  # FlashPix version, colour space, width, height
    *(0xA20B, 0xA20C, 0xA20E, 0xA20F, 0xA210, 0xA214, 0xA215, 0xA217),  # flash energy, frequency response, sensor
    *(0xA300, 0xA301, 0xA302),  # source, kind of scene, pattern of the sensor
    *range(0xA401, 0xA40D),  # rendering, exposure and white balance, zoom, contrast, settings, distance
    *(0xA420, 0xA430, 0xA431, 0xA432, 0xA433, 0xA434, 0xA435, 0xA436, 0xA437),  # id, owner, body, lens, title, people
    *range(0xA438, 0xA43D),  # editors and software of editing
    *(0xA460, 0xA461, 0xA462, 0xA500),  # composite image, gamma
}
_POSITION = {*range(0x20)}
_INTEROPERABILITY = {0x0001, 0x0002, 0x1000, 0x1001, 0x1002}
_ALLOWED = {EXIF: _PHOTO, GPS: _POSITION, INTEROP: _INTEROPERABILITY}
_NAMES = {EXIF: "EXIF", GPS: "GPS", INTEROP: "EXIF interoperability"}


def kept_exif(block: bytes, orientation: int, keeping: Keeping) -> bytes:
    """The block of the edited file, with its prefix `Exif`; empty if there is nothing to store.

    `orientation` is the orientation of the file, from whichever block it was read.
    """
    block = block.removeprefix(_PREFIX)
    directory, layout = Directory(), Layout("<")
    if block:
        try:
            layout = ifd.layout_of(block)
            source = ifd.read(block, layout, ifd.first_offset(block, layout), POINTERS)
        except IfdError:
            keeping.lose("EXIF (unreadable)")
        else:
            directory = kept_directory(source, RESOLUTION if keeping.strips_all else MAIN, "EXIF", keeping)
            if source.next:
                keeping.lose("EXIF thumbnail")
    if orientation != 1 or directory.values or directory.below:
        directory.values[ORIENTATION] = ifd.integers(layout.order, ifd.SHORT, orientation)
    if not directory.values:
        return b""
    head = (b"II*\x00" if layout.order == "<" else b"MM\x00*") + layout.pack(8)
    return _PREFIX + head + ifd.write(directory, layout, 8)


def kept_directory(source: Directory, allowed: set[int], name: str, keeping: Keeping) -> Directory:
    """The allowed values of a directory, and of the directories of EXIF, GPS and interoperability below it."""
    kept = Directory()
    for tag in source.broken:
        keeping.lose(f"{name} 0x{tag:04x} (broken)")
    for tag, value in source.values.items():
        if tag in allowed and not holds_picture(value.data):
            kept.values[tag] = value
        elif tag == _MAKER_NOTE and name == "EXIF":
            keeping.lose("EXIF maker note")
        elif tag == _CONTENT_CREDENTIALS:
            keeping.lose("C2PA manifest")
        elif tag not in _STORAGE or tag in allowed:
            keeping.lose(f"{name} 0x{tag:04x}")
    for tag, below in source.below.items():
        if keeping.strips_all or (tag == GPS and keeping.strips_location):
            continue
        if tag in _ALLOWED:
            sub_directory = kept_directory(below, _ALLOWED[tag], _NAMES[tag], keeping)
            if sub_directory.values or sub_directory.below:
                kept.below[tag] = sub_directory
    return kept


def exif_values(block: bytes) -> list[Value]:
    """All values of a block that this module wrote; IfdError if it has other bytes."""
    block = block.removeprefix(_PREFIX)
    layout = ifd.layout_of(block)
    source = ifd.read(block, layout, ifd.first_offset(block, layout), POINTERS)
    _check_tags(source, MAIN)
    if source.next or ifd.write(source, layout, layout.header) != block[layout.header :]:
        raise IfdError("bytes that belong to no value")
    return [*ifd.every_value(source)]


def _check_tags(directory: Directory, allowed: set[int]) -> None:
    if directory.broken or not directory.values.keys() <= allowed:
        raise IfdError("tags that are not on the list")
    for tag, below in directory.below.items():
        _check_tags(below, _ALLOWED[tag])
