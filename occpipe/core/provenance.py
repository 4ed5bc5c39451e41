"""The metadata of an edited picture: the policy for what it keeps, and the mark that software edited it.

The mark is IPTC's digital source type, in XMP.

Sources: IPTC Photo Metadata Standard 2025.1, "Digital Source Type"; the NewsCodes at
http://cv.iptc.org/newscodes/digitalsourcetype/; ISO 16684-1 (XMP), 7.3 and 7.4.
"""

from __future__ import annotations

import re
from enum import StrEnum

MAX_IN_JPEG = 65_502
"""Most bytes of an XMP packet that fit in a JPEG segment (XMP specification, part 3, 1.1.3)."""

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_NAMESPACE = b"http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_MAX_PREFIXES = 8
_PREFIX = rb"xmlns:(\w{1,50})\s*=\s*[\"']%s[\"']"
_QUOTED = rb"(?:\"[^\"<>]{0,500}\"|'[^'<>]{0,500}')"


class SourceType(StrEnum):
    """IPTC's terms for a photo with a part made by software; `none` writes no mark."""

    AUTO = "auto"
    COMPOSITE_WITH_TRAINED = "compositeWithTrainedAlgorithmicMedia"
    COMPOSITE = "compositeSynthetic"
    ENHANCED = "algorithmicallyEnhanced"
    NONE = "none"


class MetadataPolicy(StrEnum):
    """Which metadata of its source an edited file keeps.

    `keep` keeps all that can be kept. `strip_location` leaves out the place of the photo. `strip_all` keeps only what the
    picture needs to look the same: colour, orientation, transparency and density.
    """

    KEEP = "keep"
    STRIP_LOCATION = "strip_location"
    STRIP_ALL = "strip_all"


def mark(xmp: bytes, kind: SourceType, limit: int | None = None) -> bytes:
    """An XMP packet (empty if there is none) with the mark, which replaces an earlier one.

    The packet is not parsed, because it comes from an untrusted file. It is returned unchanged if it has no RDF or many
    prefixes for IPTC's namespace, or would exceed `limit` bytes: its description of the photo matters more than the mark.
    """
    if kind is SourceType.NONE:
        return xmp
    if not xmp:
        return _packet(kind)
    rdf = re.search(_PREFIX % re.escape(_RDF), xmp)
    if rdf is None:
        return xmp
    prefixes = {match[1] for match in re.finditer(_PREFIX % re.escape(_NAMESPACE), xmp)}
    if len(prefixes) > _MAX_PREFIXES:  # each needs a search through the packet
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
    return xmp if limit is not None and len(marked) > limit else marked


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
