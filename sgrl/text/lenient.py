"""Reading TOON that is not quite TOON: what metrics recover from any text, and what can be counted in it.

`read` follows the lenient parser of SceneGraphVLM's evaluator, with two differences: the objects of a graph whose
relation header is missing or misplaced are kept, and the number of rows is bounded (`MAX_RECOVERED`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable

from sgrl.text.parsed import MAX_RECOVERED, ParsedGraph

# line -> [(id, predicate, id)], or None if it is no relation
RowReader = Callable[[str], list[tuple[str, str, str]] | None]

_HEADER = re.compile(r"[ \t]*+([A-Za-z_]++)[ \t]*+\[[ \t]*+([0-9]*+)[ \t]*+\][ \t]*+(?:\{[^{}]*+\})?+[ \t]*+:?+")
_ID = re.compile(r"[0-9]{1,9}+")
_FLOAT = re.compile(r"[+-]?+[0-9]{1,9}+(?:\.[0-9]{0,30}+)?+")


def split_row(line: str) -> list[str]:
    """The cells of a line, CSV quotes resolved, each stripped."""
    if '"' in line:
        try:
            return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
        except (csv.Error, StopIteration):
            pass  # a cell longer than csv allows
    return [cell.strip() for cell in line.split(",")]


def read(body: str, relation_table: str, relation_row: RowReader) -> tuple[ParsedGraph, list[str]]:
    """The graph in a body, line by line, and what was wrong with it.

    Objects: rows id,label,x1,y1,x2,y2 after a header `obj[...]`, any numbers, corners in any order (they are sorted);
    the first of several objects with one id is the one that relations mean. Relations: rows that `relation_row` reads
    after a header named `relation_table`, wherever it stands.
    """
    labels: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []
    position: dict[int, int] = {}
    named: list[tuple[str, str, str]] = []
    issues: list[str] = []
    announced: dict[str, str] = {}
    table = None
    ignored = 0
    for line in body.splitlines():
        line = line.strip()
        if not line or line.startswith("```"):
            continue
        match = _HEADER.match(line)
        if match:
            table = match[1].lower()
            announced[table] = match[2]
            continue
        if table == "obj" and len(labels) < MAX_RECOVERED:
            cells = split_row(line)
            if len(cells) >= 6 and _ID.fullmatch(cells[0]) and all(map(_FLOAT.fullmatch, cells[2:6])):
                x1, y1, x2, y2 = map(float, cells[2:6])
                if x1 > x2 or y1 > y2:
                    issues.append(f"object {cells[0]}: corners swapped")
                if position.setdefault(int(cells[0]), len(labels)) != len(labels):
                    issues.append(f"object {cells[0]}: id used twice")
                labels.append(cells[1].lower())
                boxes.append((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
                continue
        elif table == relation_table and len(named) < MAX_RECOVERED:
            found = relation_row(line)
            if found is not None:
                named += found
                continue
        ignored += 1
    relations = [(_position(s, position), p, _position(o, position)) for s, p, o in named[:MAX_RECOVERED]]
    if ignored:
        issues.append(f"{ignored} lines ignored")
    if "obj" not in announced:
        issues.append("obj header is missing")
    if relation_table not in announced:
        issues.append(f"{relation_table} header is missing")
    if announced.get("obj") not in (None, str(len(labels))):
        issues.append(f"obj[{announced['obj']}] announced, {len(labels)} found")
    unknown = sum(s < 0 or o < 0 for s, _, o in relations)
    if unknown:
        issues.append(f"{unknown} relations name an unknown object")
    return ParsedGraph(labels, boxes, relations), issues


def _position(cell: str, position: dict[int, int]) -> int:
    return position.get(int(cell), -1)


def triplet_row(line: str) -> list[tuple[str, str, str]] | None:
    """subj,pred,obj with any predicate."""
    cells = split_row(line)
    if len(cells) >= 3 and _ID.fullmatch(cells[0]) and cells[1] and _ID.fullmatch(cells[2]):
        return [(cells[0], cells[1].lower(), cells[2])]
    return None
