"""The mark in an edited picture that says it was edited by software: IPTC's digital source type, in XMP.

Sources: IPTC Photo Metadata Standard 2025.1, "Digital Source Type"; the NewsCodes at
http://cv.iptc.org/newscodes/digitalsourcetype/; ISO 16684-1 (XMP), 7.3 and 7.4.
"""

from __future__ import annotations

import re
from enum import StrEnum

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_NAMESPACE = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_MOST_IN_JPEG = 65_502  # bytes of a packet that an APP1 segment holds (XMP specification, part 3, 1.1.3)
_ABOUT = re.compile(rb'rdf:about\s*=\s*("[^"<>]{0,500}"|\'[^\'<>]{0,500}\')')
_EARLIER = re.compile(
    rb"<Iptc4xmpExt:DigitalSourceType(?:\s[^<>]{0,500})?(?:/>|>[^<>]{0,500}</Iptc4xmpExt:DigitalSourceType\s*>)"
    rb'|\sIptc4xmpExt:DigitalSourceType\s*=\s*(?:"[^"<>]{0,500}"|\'[^\'<>]{0,500}\')'
)
_END = b"</rdf:RDF>"


class SourceType(StrEnum):
    """IPTC's terms for a photo of which a part was made by software; `none` writes no mark."""

    COMPOSITE_WITH_TRAINED = "compositeWithTrainedAlgorithmicMedia"
    COMPOSITE = "compositeSynthetic"
    ENHANCED = "algorithmicallyEnhanced"
    NONE = "none"


def mark(xmp: bytes, kind: SourceType) -> bytes:
    """An XMP packet with the mark: the given one (empty for none) with its earlier mark replaced, or a new one.

    The packet is not parsed, for it comes from strangers: what is no RDF, or would be too long for a JPEG, is replaced.
    """
    if kind is SourceType.NONE:
        return xmp
    kept = _EARLIER.sub(b"", xmp)
    at = kept.rfind(_END)
    about = _ABOUT.search(kept)
    description = _description(about[1] if about else b'""', kind)
    marked = kept[:at] + description + kept[at:]
    if at >= 0 and len(marked) <= _MOST_IN_JPEG:
        return marked
    return (
        b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        + _description(b'""', kind)
        + _END
        + b'</x:xmpmeta><?xpacket end="w"?>'
    )


def _description(about: bytes, kind: SourceType) -> bytes:
    return (
        b"<rdf:Description rdf:about="
        + about
        + f' xmlns:Iptc4xmpExt="{_NAMESPACE}" Iptc4xmpExt:DigitalSourceType="{_VOCABULARY}{kind}"/>'.encode()
    )
