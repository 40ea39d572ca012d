"""How SceneGraphVLM's evaluator of PSG and PVSG reads a text, for `protocol="published"`. Never raises; linear time.

Where it departs from the lenient reader (`lenient`), each of which moves numbers that people compare:

* Thoughts are dropped up to the last `</think>`, but for one before which a line begins with a header.
* The last closed answer with `obj[N]` counts, else the last one, else the whole text.
* A header is `obj[2]{...}:`, with blanks or without, anywhere in a line. Without one the objects begin with the first
  line that holds an id and five commas, which is lost itself; the relations with the first line whose first and third
  cells are numbers, which is lost too and is often an object.
* Cells are parted by commas. A coordinate is whatever Python's float takes: objects at "inf" and "nan" count, too.
* Objects end where a line begins with `rel[`; everything after the relations' header that begins with an id, something
  and an id is a relation, also one of an empty predicate.
* Of several objects with one id, relations mean the one that is matched (see `namesakes`).

Source: metrics/qwen-bench/eval/eval_sgg_metrics_with_qwen.py (SceneGraphVLM). Unlike there, rows beyond MAX_RECOVERED
of each kind are left out, and a label of more than MAX_LABEL characters is cut (it equals none either way).
"""

from __future__ import annotations

import math
import re

from sgrl.graph import Box
from sgrl.text import answer
from sgrl.text.codec import Codec
from sgrl.text.labels import MAX_LABEL
from sgrl.text.lenient import split_row
from sgrl.text.parsed import LARGEST, MAX_RECOVERED, ParsedGraph

_THINK_END = "</think>"
_HEADER_IN_THOUGHT = re.compile(r"(?:^|\n)[^\S\n]*+(?:obj\[\d++\]\{id,name|rel\[\d++\]\{subj,pred,obj\})")
_TAG = re.compile(r"<(/?)answer\s*+>", re.IGNORECASE)
_OBJECTS = re.compile(r"obj\s*+\[\s*+\d++\s*+\]", re.IGNORECASE)
_HEADER = {name: re.compile(rf"{name}\s*+\[\s*+\d++\s*+\]\s*+\{{", re.IGNORECASE) for name in ("obj", "rel")}
_HEADER_END = re.compile(r"\}\s*+:")
_ID_FIRST = re.compile(r"\s*+\d++\s*+,")
_NOWHERE = (0.0, 0.0, 0.0, 0.0)


def read(text: str) -> tuple[ParsedGraph, dict[int, int]]:
    """The graph, and `namesakes`: the position of each object whose id another one had before, and of that one.

    Relations name the first of several objects with one id.
    """
    lines = _lines(_answer(_after_thoughts(text.strip())))
    start = next((i for i, line in enumerate(lines) if _is_header(line, "obj")), None)
    relations_start = next((i for i, line in enumerate(lines) if _is_header(line, "rel")), None)
    if start is None:
        start = next((i for i, line in enumerate(lines) if line.count(",") >= 5 and _ID_FIRST.match(line)), None)
    if start is None:
        return ParsedGraph([], [], []), {}
    if relations_start is None:
        relations_start = next((i for i in range(start + 1, len(lines)) if _like_a_relation(lines[i])), None)
    if relations_start is None:
        object_lines, relation_lines = lines[start + 1 :], []
    else:
        object_lines = lines[start + 1 : max(start + 1, relations_start)]
        relation_lines = _behind_colon(lines[relations_start]) + lines[relations_start + 1 :]
    labels: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []
    position: dict[int, int] = {}
    namesakes: dict[int, int] = {}
    for number, label, box in _objects(_behind_colon(lines[start]) + object_lines):
        first = position.setdefault(number, len(labels))
        if first != len(labels):
            namesakes[len(labels)] = first
        labels.append(label)
        boxes.append(box)
    try:
        named = _relations(relation_lines)
    except ValueError:  # an id that int doesn't take ends the reading there
        return ParsedGraph([], [], []), {}
    relations = [(position.get(s, -1), predicate, position.get(o, -1)) for s, predicate, o in named]
    return ParsedGraph(labels, boxes, relations), namesakes


def _after_thoughts(text: str) -> str:
    parts = text.split(_THINK_END)
    for i, part in enumerate(parts[:-1]):
        if i + 2 == len(parts) and not parts[-1].strip():
            return part.strip()
        if _HEADER_IN_THOUGHT.search(part.lstrip()):
            return f"{part}\n{_THINK_END.join(parts[i + 1 :]).lstrip()}".strip()
    return parts[-1].strip()


def _answer(text: str) -> str:
    blocks: list[tuple[int, int]] = []
    opened = None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            opened = tag.end() if opened is None else opened
        elif opened is not None:
            blocks.append((opened, tag.start()))
            opened = None
    for begin, end in reversed(blocks):
        if _OBJECTS.search(text, begin, end):
            return text[begin:end]
    if blocks and (last := text[slice(*blocks[-1])].strip()):
        return last
    return text


def _lines(text: str) -> list[str]:
    return [line for line in _TAG.sub(" ", text.replace("```", " ")).strip().splitlines() if line.strip()]


def _is_header(line: str, table: str) -> bool:
    match = _HEADER[table].search(line)
    return bool(match and _HEADER_END.search(line, match.end()))


def _like_a_relation(line: str) -> bool:
    if line.count(",") < 2 or not _ID_FIRST.match(line):
        return False
    first, _, third = map(str.strip, line.split(",", 3)[:3])
    return first.isdigit() and third.isdigit()


def _behind_colon(line: str) -> list[str]:
    return list(filter(None, [line.partition(":")[2].strip()]))


def _objects(lines: list[str]) -> list[tuple[int, str, Box]]:
    found: list[tuple[int, str, Box]] = []
    for line in lines:
        if line[:4].lower() == "rel[" or len(found) == MAX_RECOVERED:
            break
        if line.count(",") < 5 or (_is_header(line, "obj") and not _ID_FIRST.match(line)):
            continue
        cells = split_row(line)
        if len(cells) < 6 or not cells[0].isdigit():
            continue
        try:
            number, corners = int(cells[0]), [float(cell) for cell in cells[2:6]]
        except ValueError:
            continue
        (x1, x2), (y1, y2) = sorted(corners[::2]), sorted(corners[1::2])
        near = all(math.isfinite(v) and abs(v) <= LARGEST for v in corners)
        found.append((number, _label(cells[1]), (x1, y1, x2, y2) if near else _NOWHERE))
    return found


def _relations(lines: list[str]) -> list[tuple[int, str, int]]:
    """Raises ValueError for an id that is no number to Python, though it consists of digits."""
    found: list[tuple[int, str, int]] = []
    for line in lines:
        if line.count(",") < 2 or len(found) == MAX_RECOVERED:
            continue
        cells = split_row(line)
        if len(cells) >= 3 and cells[0].isdigit() and cells[2].isdigit():
            found.append((int(cells[0]), _label(cells[1]), int(cells[2])))
    return found


def _label(cell: str) -> str:
    return cell.lower()[: MAX_LABEL + 1]


_TABLE = re.compile(r"obj\[[0-9]*+\]\{[^{}\n]*+\}:", re.IGNORECASE)


def lenient_with_headers(codec: Codec, text: str, relation_table: str) -> tuple[ParsedGraph, dict[int, int]]:
    """For TOON layouts that the evaluator does not know: the lenient reading of an answer in which a relation header
    follows an object header, without which it finds no graph in the layout that it knows."""
    text = answer.published(text, "obj[")
    body = answer.lenient(text, "obj[")
    objects = _TABLE.search(body)
    header = re.compile(rf"\n[ \t]*+{relation_table}\[[0-9]*+\]\{{[^{{}}\n]*+\}}:", re.IGNORECASE)
    if objects and header.search(body, objects.end()):
        return codec.recover_parsed(text, 1, 1)[0], {}
    return ParsedGraph([], [], []), {}
