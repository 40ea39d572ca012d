"""`toon-pairs`: Action Genome, where one person-object pair carries labels of three groups.

    obj[2]{id,name,x1,y1,x2,y2}:
      1,person,12,30,200,470
      2,cup/glass/bottle,300,5,340,80
    rel_pairs[1]{subj,attention,spatial,contacting,obj}:
      1,unsure,"",holding|touching,2

Several labels of one cell are joined by `|`; a group without labels is `""`, the empty string of TOON. The bracketed
cells of SceneGraphVLM (`1,[unsure],[],[holding,touching],2`), which TOON cannot decode, are read too; a text uses one
form throughout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from sgrl.graph import SceneGraph
from sgrl.text import answer, lenient, pieces, productions, published, tables
from sgrl.text.codec import Codec, as_text
from sgrl.text.labels import (
    KEYWORD_OR_NUMBER,
    MAX_LABEL,
    WIDE_LABEL,
    canonical_label,
    check_labels,
    letters,
    quote,
    quoted_wide,
)
from sgrl.text.parsed import GROUPS, MAX_OBJECTS, MAX_RELATIONS, FormatError, ParsedGraph
from sgrl.text.places import Place, in_rows
from sgrl.text.productions import literal
from sgrl.text.tables import ID, NUMBER, S
from sgrl.vocabulary import Vocabulary

LIMITS = (1, 5, 4)
"""Labels of each group that one row may have (SceneGraphVLM, AG_ATTENTION_MAX and so on)."""

OBJECT_HEADER = tables.header("obj", "{id,name,x1,y1,x2,y2}")
RELATION_HEADER = tables.header("rel_pairs", "{subj,attention,spatial,contacting,obj}")
OBJECT_ROW = rf"{ID},{S}{WIDE_LABEL}{S},{NUMBER},{NUMBER},{NUMBER},{NUMBER}"
_IN_BARS, _IN_BRACKETS = letters("._/|-"), letters("._/ \t,-")
_BARS = rf'{S}(?:{_IN_BARS}++|"(?>(?:{KEYWORD_OR_NUMBER})?)"){S}'
_BRACKETS = rf"{S}\[{_IN_BRACKETS}*+\]{S}"
BAR_ROW = rf"{ID},{_BARS},{_BARS},{_BARS},{ID}"
BRACKET_ROW = rf"{ID},{_BRACKETS},{_BRACKETS},{_BRACKETS},{ID}"
_RELATION_ROWS = rf"((?>(?:\r?+\n{BAR_ROW})+|(?:\r?+\n{BRACKET_ROW})*))"
_DOCUMENT = tables.document(OBJECT_HEADER, OBJECT_ROW, RELATION_HEADER, _RELATION_ROWS)
_BRACKET_CELLS = re.compile(r"([0-9]{1,9}+)" + 3 * r"[ \t]*+,[ \t]*+\[([^\[\]]*+)\]" + r"[ \t]*+,[ \t]*+([0-9]{1,9}+)")
_BAR_CELLS = re.compile(rf"([0-9]{{1,9}}+){S},({_BARS}),({_BARS}),({_BARS}),{S}([0-9]{{1,9}}+)")
_BAR_LINE, _BRACKET_LINE = re.compile(BAR_ROW), re.compile(BRACKET_ROW)
_HEADERS = ("obj[N]{id,name,x1,y1,x2,y2}:", "rel_pairs[M]{subj,attention,spatial,contacting,obj}:")
_LINES = tables.lines(OBJECT_HEADER, OBJECT_ROW, RELATION_HEADER, rf"{BAR_ROW}|{BRACKET_ROW}")


class ToonPairs(Codec):
    """The codec of Action Genome.

    Args:
        limits: how many attention, spatial and contacting labels one row may have.
        person_subject: whether every subject must be labelled "person".
    """

    name = "toon-pairs"
    title = "TOON, a row per pair"
    opening = tables.OPENING
    indent = 2
    grouped = True
    relation_table = "rel_pairs"
    published_label = re.compile(r"[a-z0-9](?>(?:[a-z0-9_./-]*[a-z0-9])?)")
    rules = (
        f"{tables.OBJECT_RULE}\n"
        "- rel_pairs[M] announces M rows, one per pair: id of the person, then at most 1 attention, 5 spatial and 4 "
        "contacting labels, id of the object. Labels of one cell are joined by |; not all three cells may be empty."
    )
    token_pattern = (
        pieces.TAG
        + pieces.header("rel_pairs")
        + pieces.ROW_OF_ID
        + pieces.NUMBER
        + r"|[,|][A-Za-z][\w./-]*"  # a class or a predicate
        + r'|,""'
        + pieces.WORD
    )

    def __init__(self, limits: tuple[int, int, int] = LIMITS, person_subject: bool = True):
        self.limits = limits
        self.person_subject = person_subject

    def encode(self, graph: SceneGraph) -> str:
        """As `Codec.encode`; a pair with more labels than a row may have takes several rows.

        Raises:
            FormatError: a relation without one of the three groups.
        """
        pairs: dict[tuple[int, int], tuple[list[str], ...]] = {}
        for r in graph.relations:
            if r.group not in GROUPS:
                raise FormatError(
                    f"relation {r.predicate!r} has the group {r.group!r}; expected one of {', '.join(GROUPS)}; "
                    "for relations without groups use the codec 'toon'"
                )
            cells = pairs.setdefault((r.subject, r.object), ([], [], []))
            cells[GROUPS.index(r.group)].append(canonical_label(r.predicate, True))
        rows = []
        for (subject, target), cells in pairs.items():
            while any(cells):
                now = [quote("|".join(cell[:limit])) for cell, limit in zip(cells, self.limits, strict=True)]
                rows.append(f"  {subject + 1},{','.join(now)},{target + 1}")
                cells = tuple(cell[limit:] for cell, limit in zip(cells, self.limits, strict=True))
        lines = tables.encode_objects(graph, quoted_wide)
        lines.append(f"rel_pairs[{len(rows)}]{{subj,attention,spatial,contacting,obj}}:")
        return "\n".join(lines + rows)

    def parse(self, text: str, width: int, height: int, tags: bool | None = True) -> ParsedGraph:
        body = answer.body(text, tags)
        match = _DOCUMENT.fullmatch(body)
        if match is None:
            raise tables.explain(body, _HEADERS, _LINES, "rows with and without brackets are mixed")
        n, objects, m, relations = match.groups()
        cells = tables.cells(objects)
        tables.check_count("obj", n, len(cells) // 6, 1, MAX_OBJECTS)
        positions = tables.read_ids(cells[1::6])
        labels = check_labels(cells[2::6], first_line=2, wide=True)
        boxes = tables.read_boxes(cells[3::6], cells[4::6], cells[5::6], cells[6::6], width, height)
        first_line = len(labels) + 3
        if "[" in relations:
            rows, separator = _BRACKET_CELLS.findall(relations), ","
        else:
            cells, separator = tables.cells(relations), "|"
            rows = list(zip(*[cells[i::5] for i in range(1, 6)], strict=True))
        tables.check_count("rel_pairs", m, len(rows), 0, MAX_RELATIONS)
        triplets: list[tuple[int, str, int]] = []
        if rows:
            subjects = tables.read_ends([row[0] for row in rows], positions)
            targets = tables.read_ends([row[4] for row in rows], positions)
            for i, (row, subject, target) in enumerate(zip(rows, subjects, targets, strict=True)):
                try:
                    predicates = self.row(row[1:4], separator)
                except FormatError as error:
                    raise FormatError(error.reason, first_line + i) from None
                if self.person_subject and labels[subject] != "person":
                    raise FormatError(f"the subject must be a person, found {labels[subject]!r}", first_line + i)
                triplets += [(subject, predicate, target) for predicate in predicates]
        tables.check_relations(triplets)
        return ParsedGraph(labels, boxes, triplets)

    def row(self, cells: Sequence[str], separator: str) -> list[str]:
        predicates: list[str] = []
        for group, cell, limit in zip(GROUPS, cells, self.limits, strict=True):
            read = _remembered_cell if len(cell) <= MAX_LABEL else _read_cell
            predicates += read(cell, separator, group, limit)
        if not predicates:
            raise FormatError("a row without any label")
        return predicates

    def recover_parsed(self, text: str | bytes | None, width: int, height: int) -> tuple[ParsedGraph, list[str]]:
        return lenient.read(self.body_of(as_text(text)), "rel_pairs", lenient.pairs_row)

    def recover_published(self, text: str | bytes | None) -> tuple[ParsedGraph, dict[int, int]]:
        return published.lenient_with_headers(self, as_text(text), "rel_pairs")

    def recognises(self, text: str) -> bool:
        return tables.first_column(text) == "id" and tables.has_pairs(text)

    def body_of(self, text: str) -> str:
        return lenient.body_of(text, "rel_pairs")

    def diagnose(self, text: str | bytes | None) -> dict[str, float]:
        text = as_text(text)
        separator = "," if _BRACKET_CELLS.search(text) else "|"

        def check_row(line: str, labels: dict[int, str]) -> tuple[int, int, int] | None:
            row, cells = (_BRACKET_LINE, _BRACKET_CELLS) if separator == "," else (_BAR_LINE, _BAR_CELLS)
            match = cells.fullmatch(line) if row.fullmatch(line) else None
            if match is None:
                return None
            try:
                count = len(self.row(match.groups()[1:4], separator))
            except FormatError:
                return None
            if not count or (self.person_subject and labels.get(int(match[1])) != "person"):
                return None
            return int(match[1]), int(match[5]), count

        return lenient.diagnose(text, "rel_pairs", check_row)

    def grammar(self, vocabulary: Vocabulary, max_objects: int, max_relations: int) -> dict[str, str]:
        groups = vocabulary.groups or {}
        missing = [group for group in GROUPS if group not in groups]
        if missing:
            raise FormatError(
                f"{self.name} needs the groups {', '.join(GROUPS)}; {vocabulary.name!r} has no {missing[0]!r}"
            )
        rules = {"name": productions.labels(vocabulary.objects, wide=True)}
        for group, limit in zip(GROUPS, self.limits, strict=True):
            rules[group] = f"{group}-label" + (f' ("|" {group}-label){{0,{limit - 1}}}' if limit > 1 else "")
            rules[f"{group}-label"] = productions.labels(groups[group], wide=True)
        empty = literal('""')
        rules["some-contacting"] = f"contacting | {empty}"
        rules["some-spatial"] = f"spatial | {empty}"
        rules["cells"] = (
            f'attention "," some-spatial "," some-contacting | {empty} "," spatial "," some-contacting | '
            f'{empty} "," {empty} "," contacting'
        )
        return rules | productions.tables(
            object_header="{id,name,x1,y1,x2,y2}:",
            object_row=lambda i: f'{literal(f"  {i},")} name "," x1 "," y1 "," x2 "," y2',
            relation_header="rel_pairs[{}]{{subj,attention,spatial,contacting,obj}}:",
            relation_row=lambda subject, target: f'{literal(f"  {subject},")} cells "," {target}',
            max_objects=max_objects,
            max_relations=max_relations,
        )

    def places(self, text: str) -> Iterator[Place]:
        return in_rows(text, "rel_pairs", lenient.pairs_row, grouped=True)

    def tokens(self, objects: list[str], predicates: list[str], largest: int, rows: int) -> list[str]:
        headers = "obj[{}]{{id,name,x1,y1,x2,y2}}:", "rel_pairs[{}]{{subj,attention,spatial,contacting,obj}}:"
        return [
            *pieces.TAGS,
            *pieces.headers(*headers, rows),
            *pieces.behind("\n  ", range(1, rows + 1)),
            *pieces.behind(",", range(largest + 1)),
            *pieces.behind(",", (*objects, *predicates, '""')),
            *pieces.behind("|", predicates),
        ]


def _read_cell(cell: str, separator: str, group: str, limit: int) -> tuple[str, ...]:
    """The labels of a cell, lower-cased, with their group; raises FormatError (reason only)."""
    cell = cell.strip(" \t").lower()
    if separator == "|":
        cell = cell.strip('"')
        labels = cell.split("|") if cell else []
        if "" in labels:
            raise FormatError(f"empty label in {cell!r}")
    else:
        labels = [label for label in (part.strip(" \t") for part in cell.split(",")) if label]
        if any(" " in label or "\t" in label for label in labels):
            raise FormatError(f"blank inside a label of [{cell}]")
    if len(labels) > limit:
        raise FormatError(f"{len(labels)} {group} labels; at most {limit} are allowed")
    if len(set(labels)) != len(labels):
        raise FormatError(f"a {group} label stands twice in one cell")
    return tuple(f"{group}__{label}" for label in check_labels(labels, first_line=0, wide=True))


_remembered_cell = lru_cache(maxsize=8192)(_read_cell)  # a data set has few different cells
