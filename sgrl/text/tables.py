"""The object table that all TOON layouts share: its pattern, its reader, its writer, and why a text is not one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from sgrl.graph import SceneGraph
from sgrl.text.parsed import MAX_OBJECTS, FormatError

# One regular expression is a whole layout. Possessive quantifiers (*+, ++) and atomic groups never go back, so
# that matching is linear. Whole groups are repeated in atomic ones: Python before 3.11.5 cannot match (?:...)*+.
# Numbers have at most nine digits: longer ones name no pixel, and Python refuses to read very long ones.
S = r"[ \t]*+"
NUMBER = rf"{S}-?+[0-9]{{1,9}}+{S}"
ID = rf"{S}[0-9]{{1,9}}+{S}"


OPENING = "obj[N]{...}:"
OBJECT_RULE = (
    "- obj[N] announces N objects, one per row: id (1 to N, in order), name, and the box as left, top, right and "
    "bottom edge."
)
"""What a prompt says of the objects where they have ids."""

_BEGINNING = re.compile(r"\s*+(?>(?:<answer>\s*+)?)obj\[[^{\n]{0,20}\{(\w{0,20})", re.IGNORECASE)
_PAIRS = re.compile(r"^[ \t]*+rel_pairs\[", re.IGNORECASE | re.MULTILINE)


def first_column(text: str) -> str | None:
    """The name of the first column of the table of objects with which a text begins; None without one."""
    match = _BEGINNING.match(text)
    return match and match[1].lower()


def has_pairs(text: str) -> bool:
    """Whether a line begins with the header of a table of pairs."""
    return bool(_PAIRS.search(text))


def header(name: str, fields: str) -> str:
    """Pattern of a table's first line; its row count is a group, its letters may have any case.

    Case is spelt out because sre matches `(?i:...)` many times slower than plain text.
    """
    return (
        rf"{S}(?:{re.escape(name)}|(?i:{name}))\[([0-9]{{1,9}}+)\](?:{re.escape(fields)}|(?i:{re.escape(fields)})):{S}"
    )


def rows(row: str) -> str:
    """Pattern of a table's rows, as one group, each with the line break before it.

    A row as it is written, with two blanks before it and none in it, is tried first: it matches twice as fast.
    """
    return rf"((?>(?:\n  {row.replace(S, '')}|\r?+\n{row})*))"


def document(object_header: str, object_row: str, relation_header: str, relation_rows: str) -> re.Pattern[str]:
    """A whole graph: groups are the two row counts and the two tables. One last line break is allowed."""
    return re.compile(
        object_header + rows(object_row) + r"\r?+\n" + relation_header + relation_rows + r"(?>(?:\r?+\n|\r)?)",
        re.ASCII,
    )


def lines(*patterns: str) -> tuple[re.Pattern[str], ...]:
    """The patterns of single lines, for `explain`."""
    return tuple(re.compile(pattern, re.ASCII) for pattern in patterns)


def cells(table: str) -> list[str]:
    """The cells of rows that a pattern accepted, after one leading empty cell."""
    return table.replace("\n  ", ",").replace("\n", ",").split(",")


def pixels(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """A box in whole pixels. One that has an area but would lose it by rounding becomes the pixel it begins in."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = round(x1), round(y1), round(x2), round(y2)
    if left == right and x1 < x2:
        left = math.floor(x1)
        right = left + 1
    if top == bottom and y1 < y2:
        top = math.floor(y1)
        bottom = top + 1
    return left, top, right, bottom


def encode_objects(graph: SceneGraph, quoted: Callable[[str], str]) -> list[str]:
    """The lines of `obj[N]{id,name,x1,y1,x2,y2}:`; `quoted` writes a label."""
    lines = [f"obj[{len(graph.objects)}]{{id,name,x1,y1,x2,y2}}:"]
    for i, o in enumerate(graph.objects, 1):
        x1, y1, x2, y2 = o.box  # as `pixels`, a call that would cost a tenth of the whole
        x1, y1, x2, y2 = round(x1), round(y1), round(x2), round(y2)
        if x1 == x2 or y1 == y2:
            x1, y1, x2, y2 = pixels(o.box)
        lines.append(f"  {i},{quoted(o.label)},{x1},{y1},{x2},{y2}")
    return lines


_IDS = {n: [str(i) for i in range(1, n + 1)] for n in range(MAX_OBJECTS + 1)}
_POSITIONS = {n: dict(zip(ids, range(n), strict=True)) for n, ids in _IDS.items()}


def row_positions(n: int) -> dict[str, int]:
    """id -> position where rows count from 1."""
    return _POSITIONS[n]


def read_ids(column: list[str]) -> dict[str, int]:
    """id -> position. Raises FormatError unless the ids are 1..N, in any order."""
    n = len(column)
    if column == _IDS[n]:
        return _POSITIONS[n]
    ids = [str(int(cell)) for cell in column]  # blanks and leading zeros are allowed
    positions = dict(zip(ids, range(n), strict=True))
    if positions.keys() != _POSITIONS[n].keys():
        raise FormatError(f"object ids must be 1 to {n}, each once, in any order; found {_some(ids)}")
    return positions


def check_count(name: str, announced: str, found: int, low: int, high: int) -> None:
    """Raises FormatError unless the header's number is the number of rows and lies in low..high."""
    if int(announced) != found:
        raise FormatError(f"{name}[{announced}] announces {int(announced)} rows, but {found} follow")
    if not low <= found <= high:
        raise FormatError(f"{name}[{announced}]: expected {low} to {high} rows")


# Looking a coordinate up is cheaper than converting it.
_PIXEL = {str(i): float(i) for i in range(4097)}.__getitem__


def read_boxes(
    x1: list[str], y1: list[str], x2: list[str], y2: list[str], width: int, height: int
) -> list[tuple[float, float, float, float]]:
    """Columns of the object table -> boxes. Raises FormatError on one that is empty or leaves the image."""
    try:
        boxes = list(zip(map(_PIXEL, x1), map(_PIXEL, y1), map(_PIXEL, x2), map(_PIXEL, y2), strict=True))
    except KeyError:  # blanks, leading zeros, -0, a very large image
        boxes = list(zip(map(float, x1), map(float, y1), map(float, x2), map(float, y2), strict=True))
    right, bottom = float(width), float(height)  # floats are compared with each other faster than with integers
    for a, b, c, d in boxes:
        if not (0.0 <= a < c <= right and 0.0 <= b < d <= bottom):
            line = boxes.index((a, b, c, d)) + 2
            raise FormatError(
                f"box {a:.0f},{b:.0f},{c:.0f},{d:.0f}: expected 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}",
                line,
            )
    return boxes


def read_ends(column: list[str], positions: dict[str, int]) -> list[int]:
    """Ids -> positions. Raises FormatError on an id that no object has."""
    try:
        return [positions[cell] for cell in column]
    except KeyError:
        pass
    try:
        return [positions[str(int(cell))] for cell in column]
    except KeyError as error:
        raise FormatError(f"a relation names object {error.args[0]}, but ids run from 1 to {len(positions)}") from None


def check_relations(relations: list[tuple[int, str, int]]) -> None:
    """Raises FormatError on a self-relation or a repeated relation."""
    for subject, predicate, target in relations:
        if subject == target:
            raise FormatError(f"relation {predicate!r} runs from object {subject + 1} to itself")
    if len(set(relations)) != len(relations):
        seen = set()
        for relation in relations:
            if relation in seen:
                raise FormatError(f"the relation {relation[0] + 1},{relation[1]},{relation[2] + 1} stands twice")
            seen.add(relation)


def explain(
    body: str,
    headers: tuple[str, str],
    patterns: tuple[re.Pattern[str], ...],
    otherwise: str = "the text does not follow the layout",
) -> FormatError:
    """The first line at which a text leaves its layout.

    `headers`: the two headers as they should be ("obj[N]{...}:", "rel[M]{...}:"). `patterns`: object header, object
    row, relation header, relation row. `otherwise`: what is wrong if every line is right.
    """
    object_header, object_row, relation_header, relation_row = patterns
    lines = body.split("\n")
    if not body.strip():
        return FormatError("the answer is empty")
    in_relations = False
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        if number == 1:
            if not object_header.fullmatch(line):
                return FormatError(f"expected {headers[0]}, found {_short(line)}", 1)
        elif not line.strip():
            if line or number < len(lines):  # the text may end in one line break
                return FormatError("blank line inside the graph", number)
        elif not in_relations and relation_header.fullmatch(line):
            in_relations = True
        elif in_relations and not relation_row.fullmatch(line):
            return FormatError(f"expected a row of {headers[1]}, found {_short(line)}", number)
        elif not in_relations and not object_row.fullmatch(line):
            return FormatError(f"expected a row of {headers[0]} or {headers[1]}, found {_short(line)}", number)
    if not in_relations:
        return FormatError(f"{headers[1]} is missing")
    return FormatError(otherwise)


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")


def _some(values: list[Any], limit: int = 8) -> str:
    return ", ".join(map(str, values[:limit])) + (", ..." if len(values) > limit else "")
