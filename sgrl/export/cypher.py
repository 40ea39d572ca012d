"""Cypher: one statement a graph, which Neo4j, Memgraph and others run.

A graph is a node `:SceneGraph`, which `:HAS` nodes `:Object`; between them are relations `:RELATED`, whose predicate
is a property, for a type cannot be a parameter. Texts of a graph are never part of the statement: `parameters_of` goes
with the one `STATEMENT`, and in a file they are literals. Properties are those of `sgrl.export.networkx`.

    with driver.session() as session:
        for statement, parameters in statements(graphs):
            session.run(statement, parameters)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sgrl.export.items import Item, Source, item_of
from sgrl.export.net import Net, Properties, clean, net_of
from sgrl.files import atomic_path
from sgrl.graph import SceneGraph
from sgrl.inference.prediction import Prediction
from sgrl.tubes import VideoGraph

STATEMENT = """\
CREATE (g:SceneGraph) SET g = $graph
FOREACH (o IN $objects | CREATE (g)-[:HAS]->(n:Object) SET n = o)
WITH g UNWIND $relations AS r
MATCH (g)-[:HAS]->(s:Object {id: r.subject})
MATCH (g)-[:HAS]->(t:Object {id: r.object})
CREATE (s)-[e:RELATED]->(t) SET e = r.properties"""
"""For a driver, with the parameters of `parameters_of`. One text for all graphs, so that a server plans it once."""

_SHORT = {"'": r"\'", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_ESCAPED = re.compile("[\x00-\x1f'\x7f-\x9f\u2028\u2029]")


def statements(graphs: Iterable[SceneGraph | VideoGraph | Prediction | Item]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(statement, parameters) of each graph, as drivers take them."""
    for graph in graphs:
        yield STATEMENT, parameters_of(clean(net_of(item_of(graph), Counter()), Counter()))


def parameters_of(net: Net) -> dict[str, Any]:
    """graph, objects and relations for `STATEMENT`."""
    relations = [
        {"subject": subject, "object": target, "properties": properties} for subject, target, properties in net.edges
    ]
    return {"graph": net.properties, "objects": net.nodes, "relations": relations}


def literal(value: str | int | float) -> str:
    """A value as it stands in a statement. A text stays a text, whatever it holds.

    Neo4j takes `\\uXXXX` anywhere in a statement for the character, before it looks at quotes and backslashes; so no
    backslash of a text may stand before a "u": the text is cut in two there.
    """
    if isinstance(value, str):
        parts = re.split(r"(?<=\\)(?=u)", value)
        texts = [_ESCAPED.sub(_escape, part.replace("\\", "\\\\")) for part in parts]
        return " + ".join(f"'{text}'" for text in texts)
    return repr(value).replace("e+", "e")  # the grammar has no plus sign in exponents


def _escape(match: re.Match) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04X}"


def statement_of(net: Net) -> str:
    """A statement with the values in it, for a file."""

    def properties(values: Properties) -> str:
        names = {name: f"`{name}`" if name == "group" else name for name in values}  # a keyword to some
        return "{" + ", ".join(f"{names[name]}: {literal(value)}" for name, value in values.items()) + "}"

    parts = [f"(g:SceneGraph {properties(net.properties)})"]
    parts += [f"(g)-[:HAS]->(o{node['id']}:Object {properties(node)})" for node in net.nodes]
    parts += [f"(o{subject})-[:RELATED {properties(values)}]->(o{target})" for subject, target, values in net.edges]
    return "CREATE " + ",\n  ".join(parts) + ";\n"


def write(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """A file of statements that end with a semicolon, as `cypher-shell --file` runs it."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(statement_of(clean(net_of(item, lost), lost)) for item in items)
