"""`toon`: a table of objects and a table of relations in Token-Oriented Object Notation (github.com/toon-format/spec).

    obj[2]{id,name,x1,y1,x2,y2}:
      1,person,12,30,200,470
      2,traffic-light,300,5,340,80
    rel[1]{subj,pred,obj}:
      1,looking-at,2

The strict reader follows the format reward of SceneGraphVLM: indentation, blanks around commas and the case of headers
and labels are free; ids are 1..N in any order; 1 to 200 objects and at most 400 relations; counts, boxes and ids must
be right; no relation twice, none from an object to itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sgrl.graph import SceneGraph
from sgrl.text import answer, lenient, pieces, productions, published, tables
from sgrl.text.codec import Codec, as_text
from sgrl.text.labels import LABEL, check_labels, quoted
from sgrl.text.parsed import MAX_OBJECTS, MAX_RELATIONS, ParsedGraph
from sgrl.text.places import Place, in_rows
from sgrl.text.productions import literal
from sgrl.text.tables import ID, NUMBER, S
from sgrl.vocabulary import Vocabulary

OBJECT_HEADER = tables.header("obj", "{id,name,x1,y1,x2,y2}")
RELATION_HEADER = tables.header("rel", "{subj,pred,obj}")
OBJECT_ROW = rf"{ID},{S}{LABEL}{S},{NUMBER},{NUMBER},{NUMBER},{NUMBER}"
RELATION_ROW = rf"{ID},{S}{LABEL}{S},{ID}"
_DOCUMENT = tables.document(OBJECT_HEADER, OBJECT_ROW, RELATION_HEADER, tables.rows(RELATION_ROW))
_HEADERS = ("obj[N]{id,name,x1,y1,x2,y2}:", "rel[M]{subj,pred,obj}:")
_LINES = tables.lines(OBJECT_HEADER, OBJECT_ROW, RELATION_HEADER, RELATION_ROW)


class Toon(Codec):
    name = "toon"
    title = "TOON"
    opening = tables.OPENING
    indent = 2
    relation_table = "rel"
    published_label = re.compile(r"[a-z0-9]++(?>(?:-[a-z0-9]++)*)")
    rules = (
        f"{tables.OBJECT_RULE}\n"
        "- rel[M] announces M relations, one per row: id of the subject, predicate, id of the object. Without "
        "relations write rel[0] and no rows."
    )
    token_pattern = pieces.TAG + pieces.header("rel") + pieces.ROW_OF_ID + pieces.NUMBER + pieces.LABEL + pieces.WORD

    def encode(self, graph: SceneGraph) -> str:
        lines = tables.encode_objects(graph, quoted)
        lines.append(f"rel[{len(graph.relations)}]{{subj,pred,obj}}:")
        lines += [f"  {r.subject + 1},{quoted(r.predicate)},{r.object + 1}" for r in graph.relations]
        return "\n".join(lines)

    def parse(self, text: str, width: int, height: int, tags: bool | None = True) -> ParsedGraph:
        body = answer.body(text, tags)
        match = _DOCUMENT.fullmatch(body)
        if match is None:
            raise tables.explain(body, _HEADERS, _LINES)
        n, objects, m, relations = match.groups()
        cells = tables.cells(objects)
        tables.check_count("obj", n, len(cells) // 6, 1, MAX_OBJECTS)
        positions = tables.read_ids(cells[1::6])
        labels = check_labels(cells[2::6], first_line=2)
        boxes = tables.read_boxes(cells[3::6], cells[4::6], cells[5::6], cells[6::6], width, height)
        cells = tables.cells(relations)
        tables.check_count("rel", m, len(cells) // 3, 0, MAX_RELATIONS)
        subjects = tables.read_ends(cells[1::3], positions)
        targets = tables.read_ends(cells[3::3], positions)
        predicates = check_labels(cells[2::3], first_line=len(labels) + 3)
        triplets = list(zip(subjects, predicates, targets, strict=True))
        tables.check_relations(triplets)
        return ParsedGraph(labels, boxes, triplets)

    def recover_parsed(self, text: str | bytes | None, width: int, height: int) -> tuple[ParsedGraph, list[str]]:
        return lenient.read(self.body_of(as_text(text)), "rel", lenient.triplet_row)

    def recover_published(self, text: str | bytes | None) -> tuple[ParsedGraph, dict[int, int]]:
        return published.read(as_text(text))

    def recognises(self, text: str) -> bool:
        return tables.first_column(text) == "id" and not tables.has_pairs(text)

    def body_of(self, text: str) -> str:
        return lenient.body_of(text, "rel")

    def diagnose(self, text: str | bytes | None) -> dict[str, float]:
        return lenient.diagnose(as_text(text), "rel", _check_row)

    def grammar(self, vocabulary: Vocabulary, max_objects: int, max_relations: int) -> dict[str, str]:
        return {
            "name": productions.labels(vocabulary.objects),
            "predicate": productions.labels(vocabulary.predicates),
            **productions.tables(
                object_header="{id,name,x1,y1,x2,y2}:",
                object_row=lambda i: f'{literal(f"  {i},")} name "," x1 "," y1 "," x2 "," y2',
                relation_header="rel[{}]{{subj,pred,obj}}:",
                relation_row=lambda subject, target: f'{literal(f"  {subject},")} predicate "," {target}',
                max_objects=max_objects,
                max_relations=max_relations,
            ),
        }

    def places(self, text: str) -> Iterator[Place]:
        return in_rows(text, "rel", lenient.triplet_row)

    def tokens(self, objects: list[str], predicates: list[str], largest: int, rows: int) -> list[str]:
        return [
            *pieces.TAGS,
            *pieces.headers("obj[{}]{{id,name,x1,y1,x2,y2}}:", "rel[{}]{{subj,pred,obj}}:", rows),
            *pieces.behind("\n  ", range(1, rows + 1)),
            *pieces.behind(",", range(largest + 1)),
            *pieces.behind(",", (*objects, *predicates)),
        ]


_STRICT_ROW = re.compile(rf"([0-9]{{1,9}}+){S},{S}{LABEL}{S},{S}([0-9]{{1,9}}+)")


def _check_row(line: str, labels: dict[int, str]) -> tuple[int, int, int] | None:
    match = _STRICT_ROW.fullmatch(line)
    return (int(match[1]), int(match[2]), 1) if match else None
