"""Graphs for networkx: in memory, and as node-link data, one graph a line, which `networkx.node_link_graph` reads.

A graph is directed and may have several edges between two nodes. Nodes are numbers from 1 with label, x1, y1, x2, y2,
score and track; edges have an id, which keeps their order, predicate, group, score and, of a span, first and last; the
graph has width, height and the names of the image. Of a video see `sgrl.export.net`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl import plain
from sgrl.export.items import Item, Source, item_of
from sgrl.export.net import Net, graph_of, net_of
from sgrl.extras import require
from sgrl.files import atomic_path
from sgrl.graph import SceneGraph
from sgrl.inference.prediction import Prediction
from sgrl.tubes import VideoGraph

if TYPE_CHECKING:
    from networkx import MultiDiGraph


def to_networkx(graph: SceneGraph | VideoGraph | Prediction | Item) -> MultiDiGraph:
    """The graph in memory. Raises SgrlError where networkx is not installed."""
    networkx = require("networkx", what="a graph in memory")
    net = net_of(item_of(graph), Counter())
    found = networkx.MultiDiGraph(**net.properties)
    for node in net.nodes:
        found.add_node(node["id"], **{name: value for name, value in node.items() if name != "id"})
    for subject, target, properties in net.edges:
        found.add_edge(subject, target, **properties)
    return found


def from_networkx(graph: MultiDiGraph) -> SceneGraph:
    """The graph of an image that `to_networkx` made, or that networkx read from our files.

    Raises:
        GraphError: nodes without a box, edges without a predicate, no width or height.
    """
    nodes = [{"id": node, **properties} for node, properties in graph.nodes(data=True)]
    return graph_of(Net(graph.graph, nodes, list(graph.edges(data=True))))


def node_link(net: Net) -> dict:
    """As `networkx.node_link_data` writes it, without networkx."""
    keys: Counter[tuple[int, int]] = Counter()
    edges = []
    for subject, target, properties in net.edges:
        edges.append({**properties, "source": subject, "target": target, "key": keys[subject, target]})
        keys[subject, target] += 1
    return {"directed": True, "multigraph": True, "graph": net.properties, "nodes": net.nodes, "edges": edges}


def write(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """One graph a line."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.writelines(plain.text(node_link(net_of(item, lost))) + "\n" for item in items)
