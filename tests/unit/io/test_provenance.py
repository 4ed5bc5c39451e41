"""The mark of an edited file: there in every format that can carry it, and nothing else of the metadata lost."""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import PngImagePlugin

from occpipe.core.provenance import SourceType, mark
from occpipe.io.images import Limits, decode, encode_like

LIMITS = Limits()
KIND = SourceType.COMPOSITE_WITH_TRAINED
TERM = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
DESCRIPTION = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
ABOUT = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}about"
TITLE = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="archive 7"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def parse(packet: bytes) -> list[ET.Element]:
    """The descriptions of a packet; an error where it is not XML."""
    return list(ET.fromstring(packet).iter(DESCRIPTION))  # noqa: S314  # our own output


def source_types(packet: bytes) -> list[str]:
    found = parse(packet)
    return [d.attrib[TYPE] for d in found if TYPE in d.attrib] + [e.text or "" for d in found for e in d.iter(TYPE)]


def test_a_new_packet_and_one_that_is_there() -> None:
    assert source_types(mark(b"", KIND)) == [TERM]
    marked = mark(TITLE, KIND)
    assert source_types(marked) == [TERM]
    assert b'dc:source="archive 7"' in marked
    assert {d.attrib[ABOUT] for d in parse(marked)} == {"uuid:1"}  # all descriptions of a packet are of one thing


def test_an_earlier_mark_is_replaced() -> None:
    capture = TERM.replace("compositeWithTrainedAlgorithmicMedia", "digitalCapture")
    as_attribute = mark(TITLE, KIND).replace(TERM.encode(), capture.encode())
    as_element = TITLE.replace(
        b"</rdf:RDF>",
        b'<rdf:Description rdf:about="uuid:1" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        + f"<Iptc4xmpExt:DigitalSourceType>{capture}</Iptc4xmpExt:DigitalSourceType>".encode()
        + b"</rdf:Description></rdf:RDF>",
    )
    for packet in (as_attribute, as_element):
        assert source_types(packet) == [capture]
        assert source_types(mark(packet, KIND)) == [TERM]


@pytest.mark.parametrize("broken", [b"no xml", b"<rdf:RDF>", b"\xff\x00" * 50, TITLE.replace(b"</rdf:RDF>", b"")])
def test_what_cannot_be_marked_stays(broken: bytes) -> None:
    assert mark(broken, KIND) == broken
    assert mark(b"", SourceType.NONE) == b""


def test_other_prefixes_of_the_same_namespaces() -> None:
    foreign = (
        mark(TITLE, KIND).replace(b"Iptc4xmpExt:", b"e:").replace(b":Iptc4xmpExt=", b":e=").replace(b"rdf:", b"r:")
    )
    foreign = foreign.replace(b":rdf=", b":r=").replace(TERM.encode(), TERM.encode()[:-5])
    assert source_types(foreign) == [TERM[:-5]]
    assert source_types(mark(foreign, KIND)) == [TERM]


def test_a_packet_too_long_for_a_jpeg_stays_unmarked_and_elsewhere_it_is_marked() -> None:
    turned = TITLE.replace(b"archive 7", b"a" * 65_200).replace(b"dc:source", b'tiff:Orientation="6" dc:source')
    turned = turned.replace(b"xmlns:dc", b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc')
    pixels = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    for fmt, kinds in (("JPEG", []), ("WEBP", [TERM])):
        out = io.BytesIO()
        Pil.fromarray(pixels).save(out, fmt, xmp=turned)
        upright = decode(out.getvalue(), LIMITS)
        assert upright.shape == (64, 48, 3)  # the orientation stands in the packet alone
        written = encode_like(upright, out.getvalue(), LIMITS, KIND)
        assert decode(written, LIMITS).shape == (64, 48, 3)
        with Pil.open(io.BytesIO(written)) as opened:
            opened.load()
            assert source_types(opened.info["xmp"]) == kinds


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("packet", [b"", TITLE], ids=["new", "kept"])
def test_every_format_carries_it(fmt: str, packet: bytes) -> None:
    pixels = np.full((48, 64, 3), 90, np.uint8)
    out = io.BytesIO()
    options: dict[str, Any] = {}
    if packet and fmt == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode())
    elif packet and fmt == "TIFF":
        options["tiffinfo"] = {700: packet}
    elif packet:
        options["xmp"] = packet
    Pil.fromarray(pixels).save(out, fmt, **options)
    written = Pil.open(io.BytesIO(encode_like(pixels, out.getvalue(), LIMITS, KIND)))
    written.load()
    found = written.info["xmp"]
    assert source_types(found) == [TERM]
    assert (b"archive 7" in found) == bool(packet)
    if packet:  # unmarked, it stays as it was
        plain = Pil.open(io.BytesIO(encode_like(pixels, out.getvalue(), LIMITS)))
        plain.load()
        assert plain.info["xmp"] == packet


def test_a_bitmap_has_no_place_for_it() -> None:
    out = io.BytesIO()
    Pil.fromarray(np.zeros((40, 40, 3), np.uint8)).save(out, "BMP")
    assert (
        Pil.open(io.BytesIO(encode_like(np.zeros((40, 40, 3), np.uint8), out.getvalue(), LIMITS, KIND))).format == "BMP"
    )


def test_many_names_for_the_namespace_cost_no_time() -> None:
    names = b" ".join(b'xmlns:p%d="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"' % n for n in range(5000))
    packet = b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" ' + names + b"></rdf:RDF>"
    assert mark(packet, SourceType.COMPOSITE) == packet
