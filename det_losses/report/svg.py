"""From an SVG file of matplotlib to an element that can stand in a page beside others."""

import hashlib
import re
from xml.etree import ElementTree

INK = "#010203"  # stands for the page's text colour in what inline() is given
FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

_SVG = "http://www.w3.org/2000/svg"
_ROOT_STYLE = (
    "width:100%;max-width:640px;height:auto;stroke-linejoin:round;stroke-linecap:butt;"
    f"font-family:{FONT_FAMILY}"
)
_FONT = re.compile(r"font(?:-size)?: (?:\w+ )*([\d.]+)px[^;]*(; ?font-family: [^;]*)?")
_LONG_NUMBER = re.compile(r"(\.\d\d)\d+")
_NUMERIC = ("d", "x", "y", "width", "height", "transform", "points")


def inline(svg: str, name: str, alt: str) -> str:
    """Make an SVG file part of a page.

    Its colour ``INK`` becomes the page's text colour, its fonts the system's, its width that of
    what it stands in. Ids that something refers to are kept and start with ``name`` and a hash of
    the picture; style sheets, which would reach into the page, and metadata go.

    Args:
        svg: text of the file.
        name: a word without spaces.
        alt: what a screen reader says.

    Returns:
        ``<svg ...>...</svg>``: well-formed XML without prolog.
    """
    root = ElementTree.fromstring(svg)
    prefix = f"{name}-{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style", "title"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            key.rpartition("}")[2]: _value(key.rpartition("}")[2], value, prefix)
            for key, value in element.attrib.items()
            if (key != "id" or value in used) and not value.startswith("rotate(-0 ")
        }
    _flatten(root)
    root.attrib = {
        "xmlns": _SVG,
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-label": alt,
        "style": _ROOT_STYLE,
    }
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def _flatten(parent: ElementTree.Element) -> None:
    children = []
    for child in parent:
        _flatten(child)
        empty = child.tag == "defs" and not len(child)
        bare = child.tag == "g" and not child.attrib
        children += list(child) if bare or empty else [child]
    parent[:] = children


def _value(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    if key == "href":
        return value.replace("#", f"#{prefix}", 1)
    value = value.replace("url(#", f"url(#{prefix}").replace(INK, "currentColor")
    if key == "style":
        return _FONT.sub(r"font-size:\1px", value).replace(": ", ":").replace("; ", ";")
    return _LONG_NUMBER.sub(r"\1", " ".join(value.split())) if key in _NUMERIC else value
