"""The XMP packet that says, to every program that reads photo metadata, what made a picture.

ISO 16684-1 (XMP), and the IPTC Photo Metadata Standard 2025.1 for the two properties of its
extension schema. Standard library only: the engine without models writes it as well.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import quoteattr

from izograf import __version__

XMP_KEY = "XML:com.adobe.xmp"  # the PNG text chunk (XMP specification, part 3, section 1.1.5)
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def provenance_packet(model: str) -> str:
    """The packet of a picture made by the model of that name: well-formed XML whatever the name.

    Characters that XML 1.0 cannot hold are left out.
    """
    tool, system = (quoteattr(_NO_XML.sub("", text)) for text in (f"Izograf {__version__}", model))
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about=""'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f" xmp:CreatorTool={tool}"
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(DIGITAL_SOURCE_TYPE)}"
        f" Iptc4xmpExt:AISystemUsed={system}/>"
        "</rdf:RDF></x:xmpmeta>"
        '<?xpacket end="r"?>'
    )
