"""`toon-lean`: `toon` with a fifth fewer tokens. One blank of indentation, no ids (rows count from 1), label first.

    obj[2]{name,x1,y1,x2,y2}:
     person,12,30,200,470
     traffic-light,300,5,340,80
    rel[1]{pred,subj,obj}:
     looking-at,1,2

It is TOON with `indent_size=1`. Whether models learn it as well as `toon` is not measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sgrl.graph import SceneGraph
from sgrl.text import answer, lenient, pieces, productions, published, tables
from sgrl.text.codec import Codec, as_text
from sgrl.text.labels import LABEL, check_labels, quoted
from sgrl.text.parsed import MAX_OBJECTS, MAX_RELATIONS, ParsedGraph
from sgrl.text.places import Place, behind, in_rows
from sgrl.text.productions import literal
from sgrl.text.tables import ID, NUMBER, S
from sgrl.vocabulary import Vocabulary

OBJECT_HEADER = tables.header("obj", "{name,x1,y1,x2,y2}")
RELATION_HEADER = tables.header("rel", "{pred,subj,obj}")
OBJECT_ROW = rf"{S}{LABEL}{S},{NUMBER},{NUMBER},{NUMBER},{NUMBER}"
RELATION_ROW = rf"{S}{LABEL}{S},{ID},{ID}"
_DOCUMENT = tables.document(OBJECT_HEADER, OBJECT_ROW, RELATION_HEADER, tables.rows(RELATION_ROW))
_HEADERS = ("obj[N]{name,x1,y1,x2,y2}:", "rel[M]{pred,subj,obj}:")
_LINES = tables.lines(OBJECT_HEADER, OBJECT_ROW, RELATION_HEADER, RELATION_ROW)


class ToonLean(Codec):
    name = "toon-lean"
    title = "TOON, lean profile"
    opening = tables.OPENING
    indent = 1
    relation_table = "rel"
    rules = (
        "- obj[N] announces N objects, one per row: name, and the box as left, top, right and bottom edge. Objects "
        "are counted from 1 in the order of the rows.\n"
        "- rel[M] announces M relations, one per row: predicate, number of the subject, number of the object. Without "
        "relations write rel[0] and no rows."
    )
    token_pattern = (
        pieces.TAG
        + r"|\n [A-Za-z][\w-]*(?=,)"  # a row begins with a class or a predicate
        + pieces.header("rel")
        + pieces.ROW_OF_ID
        + pieces.NUMBER
        + pieces.LABEL
        + pieces.WORD
    )

    def encode(self, graph: SceneGraph) -> str:
        lines = [f"obj[{len(graph.objects)}]{{name,x1,y1,x2,y2}}:"]
        for o in graph.objects:
            x1, y1, x2, y2 = tables.pixels(o.box)
            lines.append(f" {quoted(o.label)},{x1},{y1},{x2},{y2}")
        lines.append(f"rel[{len(graph.relations)}]{{pred,subj,obj}}:")
        lines += [f" {quoted(r.predicate)},{r.subject + 1},{r.object + 1}" for r in graph.relations]
        return "\n".join(lines)

    def parse(self, text: str, width: int, height: int, tags: bool | None = True) -> ParsedGraph:
        body = answer.body(text, tags)
        match = _DOCUMENT.fullmatch(body)
        if match is None:
            raise tables.explain(body, _HEADERS, _LINES)
        n, objects, m, relations = match.groups()
        cells = tables.cells(objects)
        tables.check_count("obj", n, len(cells) // 5, 1, MAX_OBJECTS)
        labels = check_labels(cells[1::5], first_line=2)
        boxes = tables.read_boxes(cells[2::5], cells[3::5], cells[4::5], cells[5::5], width, height)
        positions = tables.row_positions(len(labels))
        cells = tables.cells(relations)
        tables.check_count("rel", m, len(cells) // 3, 0, MAX_RELATIONS)
        predicates = check_labels(cells[1::3], first_line=len(labels) + 3)
        subjects = tables.read_ends(cells[2::3], positions)
        targets = tables.read_ends(cells[3::3], positions)
        triplets = list(zip(subjects, predicates, targets, strict=True))
        tables.check_relations(triplets)
        return ParsedGraph(labels, boxes, triplets)

    def recover_parsed(self, text: str | bytes | None, width: int, height: int) -> tuple[ParsedGraph, list[str]]:
        return lenient.read(self.body_of(as_text(text)), "rel", lenient.lean_triplet_row, ids=False)

    def recover_published(self, text: str | bytes | None) -> tuple[ParsedGraph, dict[int, int]]:
        return published.lenient_with_headers(self, as_text(text), "rel")

    def recognises(self, text: str) -> bool:
        return tables.first_column(text) == "name"

    def body_of(self, text: str) -> str:
        return lenient.body_of(text, "rel")

    def diagnose(self, text: str | bytes | None) -> dict[str, float]:
        return lenient.diagnose(as_text(text), "rel", _check_row, ids=False)

    def grammar(self, vocabulary: Vocabulary, max_objects: int, max_relations: int) -> dict[str, str]:
        return {
            "name": productions.labels(vocabulary.objects),
            "predicate": productions.labels(vocabulary.predicates),
            **productions.tables(
                object_header="{name,x1,y1,x2,y2}:",
                object_row=lambda i: '" " name "," x1 "," y1 "," x2 "," y2',
                relation_header="rel[{}]{{pred,subj,obj}}:",
                relation_row=lambda subject, target: f'" " predicate {literal(f",{subject},")} {target}',
                max_objects=max_objects,
                max_relations=max_relations,
            ),
        }

    def places(self, text: str) -> Iterator[Place]:
        return in_rows(text, "rel", lenient.lean_triplet_row, behind)

    def tokens(self, objects: list[str], predicates: list[str], largest: int, rows: int) -> list[str]:
        return [
            *pieces.TAGS,
            *pieces.headers("obj[{}]{{name,x1,y1,x2,y2}}:", "rel[{}]{{pred,subj,obj}}:", rows),
            *pieces.behind("\n ", (*objects, *predicates)),
            *pieces.behind(",", range(largest + 1)),
        ]


_STRICT_ROW = re.compile(rf"{LABEL}{S},{S}([0-9]{{1,9}}+){S},{S}([0-9]{{1,9}}+)")


def _check_row(line: str, labels: dict[int, str]) -> tuple[int, int, int] | None:
    match = _STRICT_ROW.fullmatch(line)
    return (int(match[1]), int(match[2]), 1) if match else None
