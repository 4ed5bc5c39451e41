"""What an edited picture says of itself: how much of its source's metadata, and the mark that software edited it.

The mark is IPTC's digital source type, in XMP.

Sources: IPTC Photo Metadata Standard 2025.1, "Digital Source Type"; the NewsCodes at
http://cv.iptc.org/newscodes/digitalsourcetype/; ISO 16684-1 (XMP), 7.3 and 7.4.
"""

from __future__ import annotations

import re
from enum import StrEnum

MOST_IN_JPEG = 65_502
"""Bytes of an XMP packet that a JPEG segment holds (XMP specification, part 3, 1.1.3)."""

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_NAMESPACE = b"http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_MOST_PREFIXES = 8
_PREFIX = rb"xmlns:(\w{1,50})\s*=\s*[\"']%s[\"']"
_QUOTED = rb"(?:\"[^\"<>]{0,500}\"|'[^'<>]{0,500}')"


class SourceType(StrEnum):
    """IPTC's terms for a photo of which a part was made by software; `none` writes no mark."""

    AUTO = "auto"
    COMPOSITE_WITH_TRAINED = "compositeWithTrainedAlgorithmicMedia"
    COMPOSITE = "compositeSynthetic"
    ENHANCED = "algorithmicallyEnhanced"
    NONE = "none"


class MetadataPolicy(StrEnum):
    """What an edited file keeps of the metadata of its source.

    `keep` keeps what can be kept. `strip_location` leaves out where the photo was taken. `strip_all` keeps only what the
    picture needs to look the same: colour, orientation, transparency and density.
    """

    KEEP = "keep"
    STRIP_LOCATION = "strip_location"
    STRIP_ALL = "strip_all"


def mark(xmp: bytes, kind: SourceType, most: int | None = None) -> bytes:
    """An XMP packet (empty for none) with the mark, in place of an earlier one.

    The packet is not parsed, for it comes from strangers. One without RDF, with many names for IPTC's namespace, or that
    would be longer than `most` bytes, comes back as it was: what it says of the photo is worth more than the mark.
    """
    if kind is SourceType.NONE:
        return xmp
    if not xmp:
        return _packet(kind)
    rdf = re.search(_PREFIX % re.escape(_RDF), xmp)
    if rdf is None:
        return xmp
    prefixes = {match[1] for match in re.finditer(_PREFIX % re.escape(_NAMESPACE), xmp)}
    if len(prefixes) > _MOST_PREFIXES:  # each costs a search through the packet
        return xmp
    for prefix in sorted(prefixes):
        name = re.escape(prefix) + b":DigitalSourceType"
        element = rb"<%s(?:\s[^<>]{0,500})?(?:/>|>[^<>]{0,500}</%s\s*>)" % (name, name)
        xmp = re.sub(element + rb"|\s" + name + rb"\s*=\s*" + _QUOTED, b"", xmp)
    at = xmp.rfind(b"</" + rdf[1] + b":RDF")
    if at < 0:
        return xmp
    about = re.search(re.escape(rdf[1]) + rb":about\s*=\s*(" + _QUOTED + rb")", xmp)
    marked = xmp[:at] + _description(rdf[1], about[1] if about else b'""', kind) + xmp[at:]
    return xmp if most is not None and len(marked) > most else marked


def _packet(kind: SourceType) -> bytes:
    return (
        b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="'
        + _RDF
        + b'">'
        + _description(b"rdf", b'""', kind)
        + b'</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def _description(rdf: bytes, about: bytes, kind: SourceType) -> bytes:
    return b'<%s:Description %s:about=%s xmlns:Iptc4xmpExt="%s" Iptc4xmpExt:DigitalSourceType="%s"/>' % (
        *(rdf, rdf, about, _NAMESPACE),
        f"{_VOCABULARY}{kind}".encode(),
    )
