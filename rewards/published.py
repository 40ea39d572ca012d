"""How SceneGraphVLM's rewards read references, and which answer of a completion they score: `protocol="published"`.

Its departures from the validated graph, each of which moves a reward:

* A reference is read row by row, whatever its headers announce: what is no row, names an unknown object, or breaks
  Action Genome's limits is not there. Boxes may leave the image or have no area. Of objects with one id the last is
  meant. Labels in another spelling than `traffic-light` equal none.
* The first closed answer is scored, also one inside the thought before the answer that was validated.
* A thought is one in `<think>...</think>`, both tags written by the model.
* Relations that are predicted cost nothing where the reference has none.
* Letters of other scripts make a text invalid.

Numbers in other scripts, which the published code accepts, stay invalid. Rows of Action Genome with `|` between labels
are read as well as bracketed ones, which are all that the published code knows.

Source: grpo/swift/rewards/pvsg_psg_toon_reward.py and ag_toon_reward.py (SceneGraphVLM).
"""

from __future__ import annotations

import functools
import re
from typing import Any

from rewards.matching import Reference
from rewards.reading import graph_text, is_graph, text_of
from sgrl.errors import SgrlError
from sgrl.graph import Box
from sgrl.text import CODECS, Codec, FormatError, ParsedGraph, answer
from sgrl.text.parsed import MAX_RECOVERED

_ID, _INTEGER = re.compile(r"[0-9]{1,9}+"), re.compile(r"[+-]?+[0-9]{1,9}+")
_BRACKETS = re.compile(
    r"([0-9]{1,9}+)[ \t]*+,[ \t]*+\[([^\]]*+)\][ \t]*+,[ \t]*+\[([^\]]*+)\][ \t]*+,[ \t]*+\[([^\]]*+)\][ \t]*+,"
    r"[ \t]*+([0-9]{1,9}+)"
)


@functools.cache
def _header(table: str) -> re.Pattern[str]:
    return re.compile(rf"{table}\[[0-9]++\]\{{", re.IGNORECASE)


@functools.cache
def _next_table(table: str) -> re.Pattern[str]:
    return re.compile(rf"\s*+{table}\[[0-9]++\]", re.IGNORECASE)


def check_family(family: str, codec: Codec | None = None) -> None:
    """Raises SgrlError where there are no published rewards to reproduce: in any layout, or in that of the codec."""
    if family != "scenegraphvlm" or (codec and codec.published_label is None):
        layouts = " and ".join(name for name, known in CODECS.items() if known.published_label)
        found = f"{family!r} in {codec.name!r}" if codec else f"{family!r}"
        raise SgrlError(
            f"the protocol 'published' is that of SceneGraphVLM's rewards in {layouts}, found the family {found}; use "
            "the protocol 'default' (docs/rewards.md says where it differs)"
        )


def reference(solution: Any, codec: Codec, width: int, height: int) -> Reference:
    """A reference as the published rewards read it; never malformed."""
    text = graph_text(solution, codec, width, height) if is_graph(solution) else text_of(solution)
    graph, same_id = _read(text, codec, "\x00")
    return Reference(graph, same_id)


def scored(text: str, graph: ParsedGraph, codec: Codec) -> ParsedGraph:
    """The graph that is scored for a text in which `graph` was validated.

    Raises:
        FormatError: the published rewards find the text invalid.
    """
    if not text.isascii():
        other = (name for name in (*graph.labels, *(p for _, p, _ in graph.relations)) if not name.isascii())
        if (label := next(other, None)) is not None:
            raise FormatError(f"label {label!r}: expected letters from a to z, digits and hyphens")
    if text.startswith(answer.OPEN):
        return graph
    text = text.strip()
    end = answer.thought_end(text)
    if end and not text.startswith("<think>"):
        raise FormatError(f"the completion must begin with <think> or {answer.OPEN}, found {text[:40]!r}")
    start = text.find(answer.OPEN)
    return graph if start >= end else _read(text, codec, "\x01")[0]


def _read(text: str, codec: Codec, unlike: str) -> tuple[ParsedGraph, list[int]]:
    """The graph in the first answer, and for each object the last one with its id.

    unlike: put before labels that equal no other.
    """
    body, closed = answer.first_closed(text)
    if not closed:
        body = answer.without_end_markers((text.partition(answer.OPEN)[2] or text).strip())
    label_like, table = _rules(codec)
    labels: list[str] = []
    boxes: list[Box] = []
    ids: list[str] = []
    relations_begin = _next_table(table).match
    for line in _rows(body, "obj"):
        if relations_begin(line):
            break
        cells = [cell.strip() for cell in line.split(",", 6)]
        if len(cells) >= 6 and all(map(_INTEGER.fullmatch, (cells[0], *cells[2:6]))) and len(ids) < MAX_RECOVERED:
            label = cells[1].lower()
            ids.append(str(int(cells[0])))
            labels.append(label if label_like.fullmatch(label) else unlike + label)
            x1, y1, x2, y2 = map(float, cells[2:6])
            boxes.append((x1, y1, x2, y2))
    position = {number: i for i, number in enumerate(ids)}
    relations: list[tuple[int, str, int]] = []
    for line in _rows(body, table):
        subject, predicates, target = _relation(line.strip(), codec)
        start, end = position.get(subject), position.get(target)
        if start is None or end is None or subject == target or len(relations) >= MAX_RECOVERED:
            continue
        if not codec.person_subject or labels[start] == "person":
            relations += [(start, predicate, end) for predicate in predicates]
    return ParsedGraph(labels, boxes, relations), [position[number] for number in ids]


def _rules(codec: Codec) -> tuple[re.Pattern[str], str]:
    """How the published rewards know a label of the layout, and its table of relations; see `check_family`."""
    assert codec.published_label is not None and codec.relation_table is not None
    return codec.published_label, codec.relation_table


def _rows(body: str, table: str) -> list[str]:
    """The lines behind the first header of a table."""
    header = _header(table).search(body)
    end = body.find("}:", header.end()) if header else -1
    return [] if end < 0 else body[end + 2 :].splitlines()


def _relation(line: str, codec: Codec) -> tuple[str, list[str], str]:
    """Ids of subject and object, and the predicates; no predicate if the line is no valid row."""
    match = _BRACKETS.fullmatch(line) if codec.grouped else None
    cells = list(match.groups()) if match else [cell.strip() for cell in line.split(",", 5)]
    if len(cells) != (5 if codec.grouped else 3) or not (_ID.fullmatch(cells[0]) and _ID.fullmatch(cells[-1])):
        return "", [], ""
    predicates: list[str] = []
    if codec.grouped:
        try:
            predicates = codec.row(cells[1:4], "," if match else "|")
        except FormatError:
            pass
    elif _rules(codec)[0].fullmatch(label := cells[1].lower()):
        predicates = [label]
    return str(int(cells[0])), predicates, str(int(cells[-1]))
