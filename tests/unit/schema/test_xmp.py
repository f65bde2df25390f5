"""The provenance that other programs read."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import example, given
from hypothesis import strategies as st

from izograf import __version__
from izograf.schema.xmp import DIGITAL_SOURCE_TYPE, provenance_packet

XMP = "{http://ns.adobe.com/xap/1.0/}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


@given(st.text())
@example("<a href=\"x\">&amp; 'b' ]]>\t\n\r")
@example("\0\ud800\ufffe?>")
def test_the_packet_is_well_formed_whatever_the_models_name(model: str) -> None:
    packet = provenance_packet(model)
    body = packet.split("?>", 1)[1].rsplit("<?", 1)[0]
    for document in (body, packet.lstrip("\ufeff")):
        (description,) = ElementTree.fromstring(document).iter(
            "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
        )
        told = description.attrib
        assert told[f"{IPTC}DigitalSourceType"] == DIGITAL_SOURCE_TYPE
        assert told[f"{XMP}CreatorTool"] == f"Izograf {__version__}"
    if model.isprintable():
        assert told[f"{IPTC}AISystemUsed"] == model
