"""RDF as Turtle or JSON-LD: the same statements in both.

A graph, its objects and its relations are resources, `urn:sgrl:graph:DATASET/IMAGE`, and after it `#o1` and `#r1`.
A relation has subject, predicate, object and its score; besides, the statement itself stands as one triple, whose
predicate is `urn:sgrl:predicate:NAME`, so that `?person <urn:sgrl:predicate:riding> ?horse` is a question.
Names in addresses are percent-encoded.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from sgrl.export.items import Item, Source, item_of
from sgrl.export.net import Net, clean, net_of
from sgrl.extras import require
from sgrl.files import atomic_path
from sgrl.graph import SceneGraph
from sgrl.inference.prediction import Prediction
from sgrl.tubes import VideoGraph

if TYPE_CHECKING:
    import rdflib

BASE, LABEL, XSD = "urn:sgrl:", "http://www.w3.org/2000/01/rdf-schema#label", "http://www.w3.org/2001/XMLSchema#"
PREFIXES = f"""@prefix sg: <{BASE}> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix xsd: <{XSD}> .

"""
TIMES = ("start", "stop", "seconds", "fps")
_DOUBLES = ("x1", "y1", "x2", "y2", "score", "first", "last", *TIMES)
_ESCAPED = re.compile(r'[\x00-\x1f"\\\x7f-\x9f\u2028\u2029]')


class Iri(str):
    """The address of a resource."""


class Node(NamedTuple):
    """A resource: what it is, and its values by name; those of `edges` by the whole address."""

    address: Iri
    kind: str
    values: dict[str, Any]
    edges: list[tuple[Iri, Iri]]


def nodes_of(net: Net, number: int = 1) -> Iterator[Node]:
    """The resources of a graph. number: names a graph that has no name."""
    properties = net.properties
    name = properties.get("image_id") or properties.get("video_id") or str(number)
    parts = [properties.get("dataset") or "", properties.get("split") or "", name]
    graph = Iri(f"{BASE}graph:{'/'.join(quote(part, safe='') for part in parts)}")
    yield Node(graph, "SceneGraph", {_renamed(key): value for key, value in properties.items()}, [])
    things = {node["id"]: Iri(f"{graph}#o{node['id']}") for node in net.nodes}
    said: dict[int, list[tuple[Iri, Iri]]] = {}
    for subject, target, edge in net.edges:
        predicate = Iri(f"{BASE}predicate:{quote(edge['predicate'], safe='')}")
        said.setdefault(subject, []).append((predicate, things[target]))
    for node in net.nodes:
        values = {"in": graph} | {_renamed(key): value for key, value in node.items() if key != "id"}
        edges = list(dict.fromkeys(said.get(node["id"], ())))
        yield Node(things[node["id"]], "Object", values, edges)
    for i, (subject, target, edge) in enumerate(net.edges, 1):
        ends = {"in": graph, "subject": things[subject], "object": things[target]}
        yield Node(Iri(f"{graph}#r{i}"), "Relation", ends | {_renamed(k): v for k, v in edge.items() if k != "id"}, [])


def _renamed(name: str) -> str:
    return name.replace("_", "-")


def turtle_of(net: Net, number: int = 1) -> Iterator[str]:
    """The lines of a graph in Turtle, without the prefixes."""
    for node in nodes_of(net, number):
        pairs = [f"a sg:{node.kind}"]
        for name, value in node.values.items():
            pairs.append(f"{'rdfs:label' if name == 'label' else f'sg:{name}'} {_turtle(name, value)}")
        pairs += [f"<{predicate}> <{target}>" for predicate, target in node.edges]
        yield f"<{node.address}> " + " ;\n    ".join(pairs) + " ."


def _turtle(name: str, value: Any) -> str:
    if isinstance(value, Iri):
        return f"<{value}>"
    if isinstance(value, str):
        return '"' + _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04X}", value) + '"'
    if name in _DOUBLES or isinstance(value, float):
        return f'"{float(value)!r}"^^xsd:double'
    return str(value)


def json_ld_of(net: Net, number: int = 1) -> Iterator[dict]:
    """The resources of a graph as JSON-LD has them, for `CONTEXT`."""
    for node in nodes_of(net, number):
        found: dict[str, Any] = {"@id": node.address, "@type": f"sg:{node.kind}"}
        for name, value in node.values.items():
            found["rdfs:label" if name == "label" else f"sg:{name}"] = _json_ld(name, value)
        for predicate, target in node.edges:
            found.setdefault(predicate, []).append({"@id": target})
        yield found


CONTEXT = {"sg": BASE, "rdfs": "http://www.w3.org/2000/01/rdf-schema#", "xsd": XSD}


def _json_ld(name: str, value: Any) -> Any:
    if isinstance(value, Iri):
        return {"@id": value}
    if isinstance(value, str):
        return value
    if name in _DOUBLES or isinstance(value, float):  # 12.0 alone would be a whole number
        return {"@value": repr(float(value)), "@type": "xsd:double"}
    return value


def to_rdf(graph: SceneGraph | VideoGraph | Prediction | Item) -> rdflib.Graph:
    """The statements in memory. Raises SgrlError where rdflib is not installed."""
    found = require("rdflib", what="RDF in memory").Graph()
    net = clean(net_of(item_of(graph), Counter()), Counter())
    return found.parse(data=PREFIXES + "\n".join(turtle_of(net)), format="turtle")


def write_turtle(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """One file."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(PREFIXES)
        for number, item in enumerate(items, 1):
            file.writelines(f"{line}\n" for line in turtle_of(clean(net_of(item, lost), lost), number))


def write_json_ld(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """One document."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write(f'{{"@context": {json.dumps(CONTEXT)}, "@graph": [')
        separator = "\n"
        for number, item in enumerate(items, 1):
            for node in json_ld_of(clean(net_of(item, lost), lost), number):
                file.write(separator + json.dumps(node))
                separator = ",\n"
        file.write("\n]}\n")
