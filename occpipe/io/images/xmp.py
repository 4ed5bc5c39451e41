"""Keeps the properties of an XMP packet that are in allowed vocabularies; those about other pictures are left out.

Sources: ISO 16684-1 (XMP) and its part 3 (extended packets in JPEG); Ultra HDR 1.1; Google's Dynamic Depth and Motion
Photo, which describe pictures beside the main one. A packet is rewritten only if it changes.
"""

from __future__ import annotations

import re
from xml.dom import minidom
from xml.parsers.expat import ExpatError

from occpipe.io.images.keeping import Keeping
from occpipe.io.images.pictures import holds_picture

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMLNS = "http://www.w3.org/2000/xmlns/"
_ADOBE = "http://ns.adobe.com/"
_IPTC_CORE = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_NOTE = _ADOBE + "xmp/note/"
_MEDIA = _ADOBE + "xap/1.0/mm/"
_BASIC = _ADOBE + "xap/1.0/"
_EXIF = _ADOBE + "exif/1.0/"
_PHOTOSHOP = _ADOBE + "photoshop/1.0/"
_VOCABULARIES = {
    *(
        _RDF,
        _XMLNS,
        "http://www.w3.org/XML/1998/namespace",
        "http://purl.org/dc/elements/1.1/",
        "http://purl.org/dc/terms/",
    ),
    *(
        _BASIC,
        _MEDIA,
        _EXIF,
        _PHOTOSHOP,
        _IPTC_CORE,
        _IPTC_EXT,
        _NOTE,
        _ADOBE + "xap/1.0/rights/",
        _ADOBE + "tiff/1.0/",
    ),
    *(_ADOBE + "exif/1.0/aux/", "http://cipa.jp/exif/1.0/", "http://cipa.jp/exif/2.32/", _ADOBE + "xap/1.0/bj/"),
    *(
        _ADOBE + "camera-raw-settings/1.0/",
        _ADOBE + "lightroom/1.0/",
        _ADOBE + "pdf/1.3/",
        _ADOBE + "xmp/1.0/DynamicMedia/",
    ),
    *("http://ns.useplus.org/ldf/xmp/1.0/", "http://creativecommons.org/ns#", "http://ns.microsoft.com/photo/1.0/"),
    *("http://ns.microsoft.com/photo/1.2/", "http://www.metadataworkinggroup.com/schemas/regions/"),
    *("http://www.metadataworkinggroup.com/schemas/keywords/", "http://www.digikam.org/ns/1.0/"),
    *(
        "http://ns.google.com/photos/1.0/panorama/",
        "http://ns.acdsee.com/iptc/1.0/",
        "http://ns.attribution.com/ads/1.0/",
    ),
}
_PICTURES = {(_BASIC, "Thumbnails"), (_MEDIA, "Pantry"), (_NOTE, "HasExtendedXMP")}
_PLACES = {
    *((_PHOTOSHOP, name) for name in ("City", "State", "Country")),
    *((_IPTC_CORE, name) for name in ("Location", "CountryCode")),
    *((_IPTC_EXT, name) for name in ("LocationShown", "LocationCreated")),
}
_DEFINITIONS = re.compile(rb"<!(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST)", re.IGNORECASE)
MAX_BYTES = 8_000_000


def kept_xmp(packet: bytes, keeping: Keeping) -> bytes:
    """The packet without the properties that may not stay; unchanged if all may stay, empty if it is not XMP."""
    if keeping.strips_all or not packet:
        return b""
    try:
        document = _parsed(packet)
        descriptions = _descriptions(document)
        changes = [_keep_properties(description, keeping) for description in descriptions]
        if any(changes):
            body = document.toxml().partition("?>")[2].encode("utf-8")
            packet = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>' + body + b'<?xpacket end="w"?>'
    except (ExpatError, ValueError, RecursionError):
        descriptions = []
    if not descriptions:
        keeping.lose("XMP (unreadable)")
        return b""
    if holds_picture(packet):
        keeping.lose("XMP (a picture)")
        return b""
    return packet


def names_anything(packet: bytes) -> bool:
    """Whether a kept packet has a property left."""
    return bool(packet) and any(
        element.attributes.length > 1 or any(child.nodeType == child.ELEMENT_NODE for child in element.childNodes)
        for element in _descriptions(_parsed(packet))
    )


def with_extension(packet: bytes, guid: bytes) -> bytes:
    """The packet with the name of its extended packet."""
    at = packet.rfind(b"</rdf:RDF")
    note = b'<rdf:Description rdf:about="" xmlns:xmpNote="%s" xmpNote:HasExtendedXMP="%s"/>' % (_NOTE.encode(), guid)
    return packet if at < 0 else packet[:at] + note + packet[at:]


def _parsed(packet: bytes) -> minidom.Document:
    packet = packet.strip(b"\0 \t\r\n").removeprefix(b"\xef\xbb\xbf")
    if _DEFINITIONS.search(packet) or len(packet) > MAX_BYTES:
        raise ValueError("definitions, or too long")
    packet.decode("utf-8")  # in another encoding, definitions would not be detected
    if re.match(rb"<\?xml\s[^>]*encoding", packet) and not re.match(rb"(?i)<\?xml\s[^>]*encoding=.utf-8", packet):
        raise ValueError("another encoding")
    return minidom.parseString(packet)  # noqa: S318 - without definitions nothing is expanded


def _descriptions(document: minidom.Document) -> list[minidom.Element]:
    """The descriptions directly below RDF, which contain the properties."""
    return [
        element
        for rdf in document.getElementsByTagNameNS(_RDF, "RDF")
        for element in rdf.childNodes
        if element.nodeType == element.ELEMENT_NODE and element.namespaceURI == _RDF
    ]


def _keep_properties(description: minidom.Element, keeping: Keeping) -> bool:
    """Remove the properties that may not stay; whether there were any."""
    changed = False
    for attribute in _attributes(description):
        if not _may_stay(attribute, attribute.value, keeping):
            description.removeAttributeNode(attribute)
            changed = True
    for child in [*description.childNodes]:
        if isinstance(child, minidom.Element) and not _may_stay(child, child.toxml(), keeping):
            description.removeChild(child)
            changed = True
    if changed:
        _forget_prefixes(description)
    return changed


def _may_stay(node: minidom.Element | minidom.Attr, text: str, keeping: Keeping) -> bool:
    space, name = node.namespaceURI or "", node.localName or node.nodeName
    if space == _XMLNS:
        return True
    if (space, name) == (_NOTE, "HasExtendedXMP"):
        return False
    is_place = (space, name) in _PLACES or (space == _EXIF and name.startswith("GPS"))
    if keeping.strips_location and is_place:
        return False
    if space in _VOCABULARIES and (space, name) not in _PICTURES and not holds_picture(text.encode()):
        return True
    keeping.lose(f"XMP {node.nodeName}")
    return False


def _forget_prefixes(description: minidom.Element) -> None:
    """Remove the declarations of vocabularies that are not used below any more."""
    inner = "".join(child.toxml() for child in description.childNodes)
    names = [attribute.nodeName for attribute in _attributes(description)]
    for name in names:
        prefix = name.removeprefix("xmlns:") + ":"
        if name.startswith("xmlns:") and prefix not in inner and not any(other.startswith(prefix) for other in names):
            description.removeAttribute(name)


def _attributes(description: minidom.Element) -> list[minidom.Attr]:
    items = (description.attributes.item(index) for index in range(description.attributes.length))
    return [item for item in items if isinstance(item, minidom.Attr)]
