"""A graph as nodes and edges with plain properties: what networkx, GraphML, RDF and Cypher have in common.

Nodes and edges of an image have boxes; those of a video have times instead: an object is one node through the whole
video, and a relation is an edge for each span in which it holds.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

from sgrl.errors import GraphError
from sgrl.export.items import Frame, Item, utf8
from sgrl.graph import Object, Relation, SceneGraph

Properties = dict[str, Any]
"""Names of properties and their values: texts, whole numbers, floats."""


class Net(NamedTuple):
    """properties: of the graph. nodes: each has an `id`, from 1, and a `label`. edges: (subject, object, properties),
    each with an `id` of its own, for its place in the graph's list, and a `predicate`; subject and object are ids of
    nodes."""

    properties: Properties
    nodes: list[Properties]
    edges: list[tuple[int, int, Properties]]


def net_of(item: Item, lost: Counter[str]) -> Net:
    """lost: counts the boxes that nodes of a video cannot hold."""
    if isinstance(item, Frame):
        return _of_image(item)
    things, events = item.story()
    lost["boxes of a video's objects in its frames"] += sum(len(frame.graph.objects) for frame in item.by_frame())
    nodes = [
        _known({"id": t.number, "label": t.label, "track": t.track, "first_frame": t.first, "last_frame": t.last})
        for t in things
    ]
    edges = []
    for i, e in enumerate(events, 1):
        found = {"id": i, "predicate": e.predicate, "group": e.group, "first_frame": e.first, "last_frame": e.last}
        edges.append((e.who, e.whom, _known(found | {"start": e.start, "stop": e.stop, "score": e.score})))
    return Net(item.names, nodes, edges)


def _of_image(item: Frame) -> Net:
    graph = item.graph
    tracks = item.tracks or (None,) * len(graph.objects)
    nodes = []
    for i, (o, track) in enumerate(zip(graph.objects, tracks, strict=True), 1):
        corners = dict(zip(("x1", "y1", "x2", "y2"), o.box, strict=True))
        nodes.append({"id": i, "label": o.label} | corners | _known({"score": o.score, "track": track}))
    edges = []
    for i, r in enumerate(graph.relations, 1):
        first, last = (None, None) if r.span is None else map(float, r.span)
        found = {"id": i, "predicate": r.predicate, "group": r.group, "first": first, "last": last, "score": r.score}
        edges.append((int(r.subject) + 1, int(r.object) + 1, _known(found)))
    return Net(item.names | _known({"width": graph.width, "height": graph.height}), nodes, edges)


def clean(net: Net, lost: Counter[str]) -> Net:
    """The same with texts that UTF-8 can hold.

    lost: counts the texts with halves of characters, which become U+FFFD.
    """

    def cleaned(properties: Properties) -> Properties:
        found = {name: utf8(value) if isinstance(value, str) else value for name, value in properties.items()}
        lost["texts with halves of characters"] += sum(found[name] != properties[name] for name in found)
        return found

    edges = [(subject, target, cleaned(properties)) for subject, target, properties in net.edges]
    return Net(cleaned(net.properties), list(map(cleaned, net.nodes)), edges)


def graph_of(net: Net) -> SceneGraph:
    """The graph of an image's nodes and edges. Raises GraphError for what is no such graph."""
    try:
        place = {node["id"]: i for i, node in enumerate(net.nodes)}
        objects = [Object(n["label"], (n["x1"], n["y1"], n["x2"], n["y2"]), n.get("score")) for n in net.nodes]
        relations = []
        for subject, target, p in sorted(net.edges, key=lambda edge: edge[2].get("id", math.inf)):
            span = (p["first"], p["last"]) if "first" in p else None
            relations.append(
                Relation(place[subject], p["predicate"], place[target], p.get("group"), span, p.get("score"))
            )
        return SceneGraph(objects, relations, net.properties["width"], net.properties["height"])
    except KeyError as error:
        raise GraphError(f"no graph of an image: {error.args[0]!r} is missing") from None


def _known(values: Properties) -> Properties:
    """Those that are there; numbers as Python has them, without those that are not finite."""
    found = {}
    for name, value in values.items():
        value = value.item() if hasattr(value, "item") else value
        if value is not None and not (isinstance(value, float) and not math.isfinite(value)):
            found[name] = value
    return found
