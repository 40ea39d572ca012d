"""GraphML, which networkx, Gephi, yEd and Cytoscape read: a folder with a file for each graph.

Those programs take the first graph of a file only, so that each has its own, numbered in the order of the input.
Properties are those of `sgrl.export.networkx`. XML has no control characters: they become U+FFFD, and are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from sgrl.export.items import Item, Source
from sgrl.export.net import Net, Properties, net_of
from sgrl.files import atomic_folder
from sgrl.images import file_name

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KINDS = {str: "string", int: "long", float: "double", bool: "boolean"}


class Xml:
    """Text as XML can hold it. lost: counts the texts that it cannot hold whole."""

    def __init__(self, lost: Counter[str]):
        self._lost = lost

    def __call__(self, value: object) -> str:
        text = repr(value) if isinstance(value, float) else str(value)
        found = _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
        self._lost["texts with characters that XML cannot hold"] += found != text
        return escape(found, {"\r": "&#13;"})  # a parser would take a bare one for a line break


def graphml_of(net: Net, lost: Counter[str]) -> Iterator[str]:
    """The lines of the file of a graph."""
    xml, keys = Xml(lost), dict[tuple[str, str, str], str]()

    def data(place: str, properties: Properties) -> str:
        cells = []
        for name, value in properties.items():
            key = keys.setdefault((place, name, _KINDS[type(value)]), f"d{len(keys)}")
            cells.append(f'<data key="{key}">{xml(value)}</data>')
        return "".join(cells)

    body = [data("graph", net.properties)]
    for node in net.nodes:
        cells = data("node", {name: value for name, value in node.items() if name != "id"})
        body.append(f'<node id="{node["id"]}">{cells}</node>')
    for number, (subject, target, properties) in enumerate(net.edges):
        body.append(f'<edge id="e{number}" source="{subject}" target="{target}">{data("edge", properties)}</edge>')
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    for (place, name, kind), key in keys.items():
        yield f'<key id="{key}" for="{place}" attr.name={quoteattr(name)} attr.type="{kind}"/>'
    yield '<graph edgedefault="directed">'
    yield from filter(None, body)
    yield "</graph>\n</graphml>"


def write(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """A new folder."""
    with atomic_folder(path) as folder:
        for number, item in enumerate(items, 1):
            net = net_of(item, lost)
            name = net.properties.get("image_id") or net.properties.get("video_id") or ""
            text = "\n".join(graphml_of(net, lost)) + "\n"
            (folder / f"{number:06d}-{file_name(name)}.graphml").write_text(text, encoding="utf-8")
