"""Reading TOON that is not quite TOON: what metrics recover from any text, and what can be counted in it.

`read` follows the lenient parser of SceneGraphVLM's evaluator, with two differences: the objects of a graph whose
relation header is missing or misplaced are kept, and the number of rows is bounded (`MAX_RECOVERED`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable

from sgrl.text import answer
from sgrl.text.labels import MAX_LABEL
from sgrl.text.parsed import GROUPS, MAX_RECOVERED, ParsedGraph

# line -> [(id, predicate, id)], or None if it is no relation
RowReader = Callable[[str], list[tuple[str, str, str]] | None]

_HEADER = re.compile(r"[ \t]*+([A-Za-z_]++)[ \t]*+\[[ \t]*+([0-9]*+)[ \t]*+\][ \t]*+(?>(?:\{[^{}]*+\})?)[ \t]*+:?+")
_ID = re.compile(r"[0-9]{1,9}+")
_FLOAT = re.compile(r"[+-]?+[0-9]{1,9}+(?>(?:\.[0-9]{0,30}+)?)")


def split_row(line: str) -> list[str]:
    """The cells of a line, CSV quotes resolved, each stripped."""
    if '"' in line:
        try:
            return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
        except (csv.Error, StopIteration):
            pass  # a cell longer than csv allows
    return [cell.strip() for cell in line.split(",")]


def read(body: str, relation_table: str, relation_row: RowReader, ids: bool = True) -> tuple[ParsedGraph, list[str]]:
    """The graph in a body, line by line, and what was wrong with it.

    Objects: rows id,label,x1,y1,x2,y2 after a header `obj[...]`, any numbers, corners in any order (they are sorted);
    the first of several objects with one id is the one that relations mean. Relations: rows that `relation_row` reads
    after a header named `relation_table`, wherever it stands. Without `ids`, the row's number is the id.
    """
    labels: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []
    position: dict[int, int] = {}
    named: list[tuple[str, str, str]] = []
    issues: list[str] = []
    announced: dict[str, str] = {}
    table = None
    rows = ignored = 0
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
            rows += 1
            cells = split_row(line) if ids else [str(rows), *split_row(line)]
            if is_object(cells):
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


def is_object(cells: list[str]) -> bool:
    """Whether a row begins with an id, a label and four numbers."""
    return (
        len(cells) >= 6
        and _ID.fullmatch(cells[0]) is not None
        and len(cells[1]) <= MAX_LABEL
        and all(map(_FLOAT.fullmatch, cells[2:6]))
    )


def _position(cell: str, position: dict[int, int]) -> int:
    return position.get(int(cell), -1)


def triplet_row(line: str) -> list[tuple[str, str, str]] | None:
    """subj,pred,obj with any predicate."""
    return triplet_cells(split_row(line))


def triplet_cells(cells: list[str]) -> list[tuple[str, str, str]] | None:
    """The relation in the cells subject, predicate, object."""
    if len(cells) >= 3 and _ID.fullmatch(cells[0]) and 0 < len(cells[1]) <= MAX_LABEL and _ID.fullmatch(cells[2]):
        return [(cells[0], cells[1].lower(), cells[2])]
    return None


def lean_triplet_row(line: str) -> list[tuple[str, str, str]] | None:
    """pred,subj,obj with any predicate."""
    cells = split_row(line)
    return triplet_cells([cells[1], cells[0], *cells[2:]]) if len(cells) >= 3 else None


_BRACKETED = re.compile(
    r"([0-9]{1,9}+)[^\[]*+\[([^\]]*+)\][^\[]*+\[([^\]]*+)\][^\[]*+\[([^\]]*+)\][ \t,]*+([0-9]{1,9}+)"
)


def pairs_row(line: str) -> list[tuple[str, str, str]] | None:
    """subj,attention,spatial,contacting,obj in either form, with any labels and any number of them."""
    match = _BRACKETED.match(line)
    if match:
        subject, *groups, target = match.groups()
        separator = ","
    else:
        cells = split_row(line)
        if len(cells) < 5 or not _ID.fullmatch(cells[0]) or not _ID.fullmatch(cells[4]):
            return None
        subject, *groups, target = cells[:5]
        separator = "|"
    return [
        (subject, f"{group}__{label}", target)
        for group, cell in zip(GROUPS, groups, strict=True)
        for label in (part.strip(' \t"').lower() for part in cell.split(separator))
        if 0 < len(label) <= MAX_LABEL
    ]


_INTEGER = re.compile(r"[+-]?+[0-9]{1,9}+")
_OBJECTS = re.compile(r"obj\[[0-9]*+\]\{[^{}]*+\}:", re.IGNORECASE)

# (row, id -> label) -> the pair it names and how many relations it holds; None if it breaks the layout
Checker = Callable[[str, dict[int, str]], tuple[int, int, int] | None]


def diagnose(text: str, relation_table: str, check_row: Checker, ids: bool = True) -> dict[str, float]:
    """See `Codec.diagnose`. Reads the first closed answer after any reasoning, or the whole text, as the diagnostics
    of SceneGraphVLM's reward do."""
    body, closed = answer.first_closed(answer.without_thoughts(text))
    header = re.compile(relation_table + r"\[[0-9]*+\]\{[^{}]*+\}:", re.IGNORECASE).search(body)
    objects = _OBJECTS.search(body)
    labels: dict[int, str] = {}
    num_objects = 0
    if objects:
        end = header.start() if header and header.start() > objects.end() else len(body)
        for number, line in enumerate(body[objects.end() : end].splitlines()):
            cells = [cell.strip() for cell in line.split(",", 6)]
            if not ids:
                cells.insert(0, str(number))
            if len(cells) >= 6 and all(map(_INTEGER.fullmatch, (cells[0], *cells[2:6]))):
                labels[int(cells[0])] = cells[1].lower()
                num_objects += 1
    rows = valid = relations = 0
    for line in body[header.end() :].splitlines() if header else ():
        line = line.strip()
        rows += bool(line)
        found = check_row(line, labels) if line else None
        if found and found[0] != found[1] and found[0] in labels and found[1] in labels:
            valid += 1
            relations += found[2]
    return {
        "no_relation": float(relations == 0),
        "num_objects": float(num_objects),
        "num_relations": float(relations),
        "invalid_relation_fraction": (rows - valid) / rows if rows else 0.0,
        "has_answer_tags": float(closed),
    }
