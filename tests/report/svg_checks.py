"""Requirements for every inline figure of a report."""

import re
from xml.etree import ElementTree

SVG = "http://www.w3.org/2000/svg"


def check_figures(figures):
    """Check figures that share a page; return their elements.

    They are well-formed, refer to nothing outside of themselves, contain no script and no style
    sheet, and no id is repeated.
    """
    elements = [element for text in figures for element in ElementTree.fromstring(text).iter()]
    names = {element.tag.rpartition("}")[2] for element in elements}
    assert not names & {"script", "style", "foreignObject", "iframe", "link", "metadata"}, names
    ids = [element.get("id") for element in elements if element.get("id")]
    assert len(set(ids)) == len(ids)
    for element in elements:
        for key, value in element.attrib.items():
            assert not key.startswith("on"), key
            if not value.startswith("data:image/jpeg;base64,"):
                assert "http" not in value.replace(SVG, "") and "//" not in value, value[:80]
            for name in re.findall(r"url\(#([^)]*)\)", value):
                assert name in ids
            if key.rpartition("}")[2] == "href":
                assert value.startswith("data:image/jpeg;base64,") or value[1:] in ids
    for text in figures:
        assert text.replace(f'xmlns="{SVG}"', "").count("http") == 0
        assert not text.startswith("<?xml") and "<!DOCTYPE" not in text
    return elements


def texts_of(figure):
    """Return the texts of a figure."""
    root = ElementTree.fromstring(figure)
    return ["".join(e.itertext()) for e in root.iter() if e.tag.rpartition("}")[2] == "text"]
