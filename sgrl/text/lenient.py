"""Reading TOON that is not quite TOON: what metrics recover from any text, and what can be counted in it.

`read` takes what TOON itself knows and models write: tabs or pipes between cells, any length marker (`[#2]`, `[2|]`,
`[N]`), blanks in a header, headers without columns or colon, rows behind their header or behind each other, objects
whose header is missing. Metrics may differ from published ones where a text has such; `published` is their reading.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from typing import Any

from sgrl.text import answer
from sgrl.text.labels import MAX_LABEL
from sgrl.text.parsed import FLOAT, GROUPS, LARGEST, MAX_RECOVERED, ParsedGraph, SwappedCorners

# line -> [(id, predicate, id)], or None if it is no relation
RowReader = Callable[[str], list[tuple[str, str, str]] | None]
Cells = list[str]

_HEADER = re.compile(
    r"[ \t*#>`]*+([A-Za-z_]++)[ \t]*+\[([^\[\]]{0,40}+)\][ \t]*+(?>(?:\{{1,2}+[^{}]*+\}{1,2}+)?)[ \t*`]*+:?+[ \t*`]*+"
)
_TABLES = ("obj", "rel", "rel_pairs")
_SPACED = re.compile(r"\b(obj|rel|rel_pairs)[ \t]++\[", re.IGNORECASE)
# Where a line holds more than one: before a header with columns, and between one row's last number and the next's id.
_BEFORE_HEADER = re.compile(
    r"(?<![A-Za-z0-9_])(?=(?:obj|rel|rel_pairs)[ \t]*+\[[^\[\]]{0,40}+\][ \t]*+\{)", re.IGNORECASE
)
_BETWEEN_ROWS = re.compile(r"(?<=[0-9.])[ \t;]++(?=[0-9]{1,9}+[ \t]*+[,|])")
_ID = re.compile(r"[0-9]{1,9}")
_DELIMITERS = "\t|"
"""What TOON may have between cells beside the comma."""


def split_row(line: str, delimiter: str = ",") -> Cells:
    """The cells of a line, CSV quotes resolved, each stripped."""
    if '"' in line:
        try:
            return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]
        except (csv.Error, StopIteration):
            pass  # a cell longer than csv allows
    return [cell.strip() for cell in line.split(delimiter)]


def body_of(text: str, relation_table: str) -> str:
    """The part of any text in which the graph most likely stands (see `answer.lenient`)."""
    if "obj[" in text:
        return answer.lenient(text, "obj[")
    text = _SPACED.sub(r"\1[", text)
    return answer.lenient(text, "obj[" if "obj[" in text.lower() else f"{relation_table}[")


def read(body: str, relation_table: str, relation_row: RowReader, ids: bool = True) -> tuple[ParsedGraph, list[str]]:
    """The graph in a body, line by line, and what was wrong with it.

    Objects: rows id,label,x1,y1,x2,y2 after a header `obj[...]` or before any header, any numbers, corners in any
    order (they are sorted); the first of several objects with one id is the one that relations mean. Relations: rows
    that `relation_row` reads after a header named `relation_table`, wherever it stands. Without `ids`, the row's
    number is the id.
    """
    reader = _Reader(relation_table, relation_row, ids)
    for line in body.splitlines():
        line = line.strip()
        if line and (left := reader.take(line)):
            reader.take_apart(left)
    return reader.graph()


class _Reader:
    """Takes lines one by one."""

    def __init__(self, relation_table: str, relation_row: RowReader, ids: bool):
        self.relation_table, self.relation_row, self.ids = relation_table, relation_row, ids
        self.labels: list[str] = []
        self.boxes: list[tuple[float, float, float, float]] = []
        self.position: dict[int, int] = {}
        self.named: list[tuple[str, str, str]] = []
        self.issues: list[str] = []
        self.announced: dict[str, str] = {}
        self.table: str | None = None
        self.rows = self.ignored = 0

    def take(self, line: str) -> str:
        """Reads a line, which is not empty, and returns what is left of it: nothing, or all behind its header."""
        if "[" in line and not line[0].isdigit():
            line = self._behind_headers(line)
            if not line:
                return ""
        if self.table == self.relation_table:
            found = self.relation_row(line) if len(self.named) < MAX_RECOVERED else None
            if found is None:
                return line
            self.named += found
            return ""
        return "" if self.table in ("obj", None) and self._object(line) else line

    def take_apart(self, line: str) -> None:
        """Reads a line that is no row: as several, or not at all."""
        parts = _BETWEEN_ROWS.sub("\n", _BEFORE_HEADER.sub("\n", line)).split("\n")
        parts = [part for part in map(str.strip, parts) if part]
        if len(parts) > 1:
            parts = [part for part in parts if self.take(part)]
        self.ignored += sum(not part.startswith("```") for part in parts)

    def _behind_headers(self, line: str) -> str:
        place = 0
        while match := _HEADER.match(line, place):
            table, count = match[1].lower(), match[2].strip(" \t#|,")
            if table not in _TABLES and not count.isdecimal() and count:
                break
            self.table = table
            self.announced[table] = count
            place = match.end()
        return line[place:]

    def _object(self, line: str) -> bool:
        if len(self.labels) >= MAX_RECOVERED:
            return False
        number = self.rows + 1
        if self.table == "obj":
            self.rows = number
        cells = split_row(line)
        if not self.ids:
            cells.insert(0, str(number))
        if not is_object(cells):
            read = _otherwise(line, self._object_cells)
            if not read:
                return False
            cells = read
        x1, y1, x2, y2 = map(float, cells[2:6])
        if not (-LARGEST <= x1 <= LARGEST and -LARGEST <= y1 <= LARGEST):
            return False
        if not (-LARGEST <= x2 <= LARGEST and -LARGEST <= y2 <= LARGEST):
            return False
        self.rows = number
        if x1 > x2 or y1 > y2:
            self.issues.append(SwappedCorners(f"object {cells[0]}: corners swapped"))
        if self.position.setdefault(int(cells[0]), len(self.labels)) != len(self.labels):
            self.issues.append(f"object {cells[0]}: id used twice")
        self.labels.append(cells[1].lower())
        self.boxes.append((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
        return True

    def _object_cells(self, cells: Cells) -> Cells | None:
        cells = cells if self.ids else [str(self.rows), *cells]
        return cells if is_object(cells) else None

    def graph(self) -> tuple[ParsedGraph, list[str]]:
        """What was read, and the issues."""
        position = self.position
        relations = [(position.get(int(s), -1), p, position.get(int(o), -1)) for s, p, o in self.named[:MAX_RECOVERED]]
        issues, announced = self.issues, self.announced
        if self.ignored:
            issues.append(f"{self.ignored} lines ignored")
        if "obj" not in announced:
            issues.append("obj header is missing")
        if self.relation_table not in announced:
            issues.append(f"{self.relation_table} header is missing")
        if announced.get("obj") not in (None, str(len(self.labels))):
            issues.append(f"obj[{announced['obj']}] announced, {len(self.labels)} found")
        unknown = sum(s < 0 or o < 0 for s, _, o in relations)
        if unknown:
            issues.append(f"{unknown} relations name an unknown object")
        return ParsedGraph(self.labels, self.boxes, relations), issues


def is_object(cells: Cells) -> bool:
    """Whether a row begins with an id, a label and four numbers."""
    return (
        len(cells) >= 6
        and _ID.fullmatch(cells[0]) is not None
        and len(cells[1]) <= MAX_LABEL
        and _are_numbers(cells[2:6])
    )


def _are_numbers(cells: Cells) -> bool:
    joined = "".join(cells)
    if joined.isdecimal() and joined.isascii() and "" not in cells and len(joined) <= 36:  # what most are
        return True
    return all(map(FLOAT.fullmatch, cells))


def _otherwise(line: str, read_cells: Callable[[Cells], list[Any] | None]) -> list[Any] | None:
    """What is read where something else than a comma stands between the cells."""
    for delimiter in _DELIMITERS:
        if delimiter in line:
            found = read_cells(split_row(line, delimiter))
            if found is not None:
                return found
    return None


def triplet_row(line: str) -> list[tuple[str, str, str]] | None:
    """subj,pred,obj with any predicate; also with none, which is one that no reference has."""
    found = triplet_cells(split_row(line))
    return _otherwise(line, triplet_cells) if found is None else found


def triplet_cells(cells: Cells) -> list[tuple[str, str, str]] | None:
    """The relation in the cells subject, predicate, object."""
    if len(cells) >= 3 and _ID.fullmatch(cells[0]) and len(cells[1]) <= MAX_LABEL and _ID.fullmatch(cells[2]):
        return [(cells[0], cells[1].lower(), cells[2])]
    return None


def lean_triplet_row(line: str) -> list[tuple[str, str, str]] | None:
    """pred,subj,obj with any predicate."""
    found = _lean_cells(split_row(line))
    return _otherwise(line, _lean_cells) if found is None else found


def _lean_cells(cells: Cells) -> list[tuple[str, str, str]] | None:
    return triplet_cells([cells[1], cells[0], *cells[2:]]) if len(cells) >= 3 else None


_BRACKETED = re.compile(
    r"([0-9]{1,9}+)[^\[]*+\[([^\]]*+)\][^\[]*+\[([^\]]*+)\][^\[]*+\[([^\]]*+)\][ \t,|]*+([0-9]{1,9}+)"
)


def pairs_row(line: str) -> list[tuple[str, str, str]] | None:
    """subj,attention,spatial,contacting,obj in either form, with any labels and any number of them."""
    match = _BRACKETED.match(line)
    if match:
        return _pairs(list(match.groups()), ",")
    found = _pairs_cells(split_row(line))
    return _otherwise(line, _pairs_cells) if found is None else found


def _pairs_cells(cells: Cells) -> list[tuple[str, str, str]] | None:
    if len(cells) < 5 or not _ID.fullmatch(cells[0]) or not _ID.fullmatch(cells[4]):
        return None
    return _pairs(cells[:5], "|")


def _pairs(cells: Cells, separator: str) -> list[tuple[str, str, str]]:
    subject, *groups, target = cells
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
