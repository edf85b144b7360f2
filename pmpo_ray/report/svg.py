"""Vega-Lite specifications drawn as SVG, in the page's colours and without what the page does not need.

Invariants: no picture contains a script; a mark that stands for a candidate or an example has its id in
`data-id`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from pmpo_ray.errors import ConfigError

_VEGALITE = "6.1"
_DROPPED = {
    "role",
    "aria-roledescription",
    "aria-hidden",
    "aria-label",
    "pointer-events",
    "class",
    "version",
    "font-family",
}
"""Attributes of Vega's SVG that the page does not need: it describes every picture as a whole."""
_MARK = re.compile(r"r\d{4,}-\d{4,}|e\d+")
_DECIMALS = re.compile(r"(?<=\d)(\.\d\d)\d+")
_NUMERIC = ("d", "transform", "x", "y", "x1", "y1", "x2", "y2", "width", "height")
_SVG = "http://www.w3.org/2000/svg"


def svg(spec: Mapping[str, Any]) -> str:
    """Draw a Vega-Lite specification. Raises ConfigError if the library that draws is not installed."""
    try:
        import vl_convert
    except ImportError:
        raise ConfigError(
            "the report's pictures need vl-convert-python; install it with: pip install 'pmpo-ray[report]'"
        ) from None
    axis = {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "gridColor": "var(--line)",
        "domain": False,
        "ticks": False,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelPadding": 6,
        "titlePadding": 10,
    }
    legend = {"labelColor": "var(--soft)", "labelFontSize": 12}
    config = {"view": {"stroke": None}, "axis": axis, "legend": legend, "axisY": {"minExtent": 34}}
    whole = {"padding": 4, **spec, "background": None, "config": config}
    return _lean(vl_convert.vegalite_to_svg(json.dumps(whole), vl_version=_VEGALITE))


def _lean(svg: str) -> str:
    """Vega's SVG with the ids of marks in `data-id`, without size, descriptions and surplus digits."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)  # noqa: S314 - Vega wrote it
    width = root.attrib.pop("width", "0")
    root.attrib.pop("height", None)
    root.set("style", f"max-width:{width}px")
    _prune(root)
    return ElementTree.tostring(root, encoding="unicode")


def _prune(element: ElementTree.Element) -> None:
    label = element.get("aria-label", "")
    for name in _DROPPED.intersection(element.keys()):
        del element.attrib[name]
    if _MARK.fullmatch(label):
        element.set("data-id", label)
    for name in _NUMERIC:
        if (value := element.get(name)) is not None:
            element.set(name, _DECIMALS.sub(r"\1", value))
    for child in list(element):
        _prune(child)
        if _invisible(child):
            element.remove(child)


def _invisible(element: ElementTree.Element) -> bool:
    if element.tag == f"{{{_SVG}}}path":
        return not element.get("d") or element.get("display") == "none"
    return element.tag == f"{{{_SVG}}}g" and not len(element)
