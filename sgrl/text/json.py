"""`json`: the layout of R1-SGG, one JSON object. An object's id is its class, a dot, and a number.

{"objects": [{"id": "person.1", "bbox": [12, 30, 200, 470]}, {"id": "traffic-light.2", "bbox": [300, 5, 340, 80]}],
 "relationships": [{"subject": "person.1", "predicate": "looking-at", "object": "traffic-light.2"}]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sgrl.graph import SceneGraph
from sgrl.text import answer, entries, pieces, productions, tables
from sgrl.text.codec import Codec, as_text, diagnosis
from sgrl.text.labels import MAX_LABEL, canonical_label
from sgrl.text.parsed import (
    LARGEST,
    MAX_OBJECTS,
    MAX_RECOVERED,
    MAX_RELATIONS,
    FormatError,
    ParsedGraph,
    UnreadableRelation,
)
from sgrl.text.places import Place
from sgrl.text.productions import literal
from sgrl.vocabulary import Vocabulary, normalised

ENDS = ("subject", "predicate", "object")
_BEGINNING = re.compile(r"\s*+(?>(?:<answer>\s*+)?)\{", re.IGNORECASE)
_ENTRY = re.compile(r"\{[^{}]*+\}")
_FIELD = re.compile(r'"(subject|predicate|object)"\s*+:\s*+"((?>(?:[^"\\]|\\.)*))"')

# What stands around the parts of a graph, of an object and of a relation, as `encode` writes them.
_GRAPH = ('{"objects": [', '], "relationships": [')
_OBJECT = ('{"id": "', ', "bbox": [')
_RELATION = ('{"subject": "', ', "predicate": "', '", "object": "')


class Json(Codec):
    name = "json"
    title = "JSON of R1-SGG"
    opening = "a JSON object"
    is_json = True
    rules = (
        '- "objects" holds one entry per object: "id" is the name, a dot and a number that tells objects of one name '
        'apart; "bbox" is the left, top, right and bottom edge.\n'
        '- "relationships" holds one entry per relation: the id of the subject, the predicate, the id of the object.'
    )
    token_pattern = (
        pieces.TAG
        + r'|\n\{"objects": \[|\], "relationships": \['
        + r'|(?:, )?\{"(?:id|subject)": "|", "bbox": \[|", "(?:predicate|object)": "|\]\}|"\}'
        + r'|(?<=")[A-Za-z][\w-]*(?:\.\d+)?(?=")'  # a class with its number, or a predicate
        + r"|(?<=\[)\d{1,3}(?=,)|, \d{1,3}(?!\d)"
        + pieces.WORD
    )

    def encode(self, graph: SceneGraph) -> str:
        ids = [f"{canonical_label(o.label)}.{i}" for i, o in enumerate(graph.objects, 1)]
        boxes = [tables.pixels(o.box) for o in graph.objects]
        return json.dumps(
            {
                "objects": [{"id": i, "bbox": box} for i, box in zip(ids, boxes, strict=True)],
                "relationships": [
                    {"subject": ids[r.subject], "predicate": canonical_label(r.predicate), "object": ids[r.object]}
                    for r in graph.relations
                ],
            }
        )

    def parse(self, text: str, width: int, height: int, tags: bool | None = True) -> ParsedGraph:
        """As `Codec.parse`. `<answer>` needs no newline; one code fence may stand around the JSON; a graph may
        be empty; labels may have any spelling."""
        objects, relations = _document(_unfenced(answer.body(text, tags, newline=False)))
        if len(objects) > MAX_OBJECTS or len(relations) > MAX_RELATIONS:
            raise FormatError(
                f"{len(objects)} objects and {len(relations)} relations; at most {MAX_OBJECTS} and {MAX_RELATIONS} "
                "are allowed"
            )
        positions = {name: i for i, (name, _) in enumerate(objects)}
        if len(positions) != len(objects):
            raise FormatError("an object id stands twice")
        for name, (x1, y1, x2, y2) in objects:
            if not name.isprintable() or not class_of(name).strip():
                raise FormatError(f"id {name!r}: expected a class, a dot and a number")
            if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
                raise FormatError(
                    f"box {[x1, y1, x2, y2]} of {name!r}: expected 0 <= x1 < x2 <= {width} and "
                    f"0 <= y1 < y2 <= {height}"
                )
        triplets = []
        for subject, predicate, target in relations:
            if not predicate.strip() or not predicate.isprintable():
                raise FormatError(f"predicate {predicate!r}: expected words")
            triplets.append((positions[subject], predicate.lower(), positions[target]))
        tables.check_relations(triplets)
        return ParsedGraph([class_of(name).lower() for name, _ in objects], [box for _, box in objects], triplets)

    def recover_parsed(self, text: str | bytes | None, width: int, height: int) -> tuple[ParsedGraph, list[str]]:
        """As `Codec.recover_parsed`, where R1-SGG's rewards read: in the first answer, or what follows its tag, or the
        whole text, without code fences and the word "json". Where that is no JSON object with both lists, entries are
        read one by one. Ids match in any case, with `_` and `-` as blanks. Corners stay as written. Of several objects
        with one id, relations mean the last."""
        body = self.body_of(as_text(text))
        issues: list[str] = []
        objects, relationships = _lists(body, issues)
        if issues:
            objects, relationships = entries.read(body)
        return _graph(objects, relationships, issues)

    def recover_published(self, text: str | bytes | None) -> tuple[ParsedGraph, dict[int, int]]:
        """What R1-SGG reads: nothing, if the whole answer is no JSON."""
        issues: list[str] = []
        return _graph(*_lists(self.body_of(as_text(text)), issues), issues)[0], {}

    def recognises(self, text: str) -> bool:
        return bool(_BEGINNING.match(text))

    def body_of(self, text: str) -> str:
        return find_answer(text)

    def diagnose(self, text: str | bytes | None) -> dict[str, float]:
        """As `Codec.diagnose`; nothing can be counted in an answer that is no JSON as a whole."""
        text = as_text(text)
        issues: list[str] = []
        parsed, _ = _graph(*_lists(self.body_of(text), issues), issues)
        return diagnosis(text, parsed, issues)

    def grammar(self, vocabulary: Vocabulary, max_objects: int, max_relations: int) -> dict[str, str]:
        subject, predicate, target = map(literal, _RELATION)
        more_relations = f"(relation {literal(', ')}){{0,{max_relations - 1}}} relation" if max_relations else ""
        return {
            "name": productions.labels(vocabulary.objects, quoted=False),
            "predicate": productions.labels(vocabulary.predicates, quoted=False),
            "id": f'name "." ({productions.integers(1, max_objects)}) {literal(chr(34))}',
            "object": f'{literal(_OBJECT[0])} id {literal(_OBJECT[1])} x1 ", " y1 ", " x2 ", " y2 {literal("]}")}',
            "relation": f'{subject} id {predicate} predicate {target} id "}}"',
            "objects": f"(object {literal(', ')}){{0,{max_objects - 1}}} object",
            "relations": f"({more_relations})?" if max_relations else '""',
            "graph": f"{literal(_GRAPH[0])} objects {literal(_GRAPH[1])} relations {literal(']}')}",
        }

    def places(self, text: str) -> Iterator[Place]:
        for entry in _ENTRY.finditer(text):
            fields = {m[1]: m for m in _FIELD.finditer(text, *entry.span())}
            if len(fields) == 3:
                yield Place(fields["predicate"][2].lower(), None, [m.span(2) for m in fields.values()])

    def tokens(self, objects: list[str], predicates: list[str], largest: int, rows: int) -> list[str]:
        return [
            *pieces.TAGS,
            *('\n{"objects": [', '], "relationships": ['),
            *('{"id": "', ', {"id": "', '{"subject": "', ', {"subject": "'),
            *('", "bbox": [', '", "predicate": "', '", "object": "', "]}", '"}'),
            *(f"{label}.{row}" for label in objects for row in range(1, rows + 1)),
            *predicates,
            *(f"{before}{number}" for before in ("", ", ") for number in range(largest + 1)),
        ]


def _lists(body: str, issues: list[str]) -> tuple[list[Any], list[Any]]:
    """Objects and relationships of a JSON text; empty, with a reason among the issues, where it has no such list."""
    document = load(body, issues)
    return items_of(document, "objects", issues), items_of(document, "relationships", issues)


def _graph(objects: list[Any], relationships: list[Any], issues: list[str]) -> tuple[ParsedGraph, list[str]]:
    """The graph in the entries; what can't be read joins the issues."""
    labels: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []
    positions: dict[str, int] = {}
    for i, item in enumerate(objects[:MAX_RECOVERED]):
        try:
            name, box = read_object(item)
        except FormatError as error:
            issues.append(f"object {i}: {error.reason}")
            continue
        if positions.get(normalised(name)) is not None:
            issues.append(f"object {i}: id {name!r} stands twice")
        positions[normalised(name)] = len(labels)
        labels.append(class_of(name).lower())
        boxes.append(box)
    relations = []
    for i, item in enumerate(relationships[:MAX_RECOVERED]):
        try:
            subject, predicate, target = read_relation(item)
        except FormatError as error:
            issues.append(UnreadableRelation(f"relation {i}: {error.reason}"))
            continue
        ends = positions.get(normalised(subject), -1), positions.get(normalised(target), -1)
        if -1 in ends:
            issues.append(f"relation {i}: names an unknown object")
        relations.append((ends[0], predicate.lower(), ends[1]))
    return ParsedGraph(labels, boxes, relations), issues


def class_of(name: str) -> str:
    """The class in an object id.

    >>> class_of("traffic light.2"), class_of("person")
    ('traffic light', 'person')
    """
    return name.rpartition(".")[0] if "." in name else name


def _document(body: str) -> tuple[list[tuple[str, tuple[Any, ...]]], list[tuple[str, str, str]]]:
    """The structure that R1-SGG's format reward asks for: objects (id, box) and relationships (ids as written).

    Raises:
        FormatError: no JSON object with both lists; an object without a string id and four finite numbers; a relation
            whose subject, predicate and object are not strings, or that names an unknown id.
    """
    issues: list[str] = []
    items = _lists(body, issues)
    if issues:
        raise FormatError(issues[0])
    objects, relations = [], []
    for i, item in enumerate(items[0]):
        try:
            objects.append(read_object(item))
        except FormatError as error:
            raise FormatError(f"object {i}: {error.reason}") from None
    names = {name for name, _ in objects}
    for i, item in enumerate(items[1]):
        try:
            relation = read_relation(item)
        except FormatError as error:
            raise FormatError(f"relation {i}: {error.reason}") from None
        for name in (relation[0], relation[2]):
            if name not in names:
                raise FormatError(f"relation {i}: no object has the id {name!r}")
        relations.append(relation)
    return objects, relations


def load(body: str, issues: list[str]) -> Any:
    """The JSON value, or None and the reason among the issues."""
    try:
        return json.loads(body)
    except RecursionError:
        issues.append("the JSON is nested too deeply")
    except ValueError as error:  # broken syntax, or an integer of more digits than Python converts
        issues.append(f"not JSON: {error}")
    return None


def items_of(document: Any, key: str, issues: list[str]) -> list[Any]:
    """The list under a key, or an empty one and the reason among the issues."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, list):
        issues.append(f"expected a JSON object with a list {key!r}")
        return []
    return value


def read_object(item: Any) -> tuple[str, tuple[float, float, float, float]]:
    """Id and box of an item of "objects". Raises FormatError."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or len(item["id"]) > MAX_LABEL:
        raise FormatError("expected an id, a string")
    box = item.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(type(v) in (int, float) for v in box):
        raise FormatError("expected a bbox of four numbers")
    if not all(-LARGEST <= v <= LARGEST for v in box):  # NaN compares false
        raise FormatError("the bbox is not finite")
    x1, y1, x2, y2 = map(float, box)
    return item["id"], (x1, y1, x2, y2)


def read_relation(item: Any) -> tuple[str, str, str]:
    """Subject, predicate and object of an item of "relationships", as written. Raises FormatError."""
    values: tuple[Any, ...] = tuple(item.get(key) for key in ENDS) if isinstance(item, dict) else ()
    if not values or not all(isinstance(v, str) and len(v) <= MAX_LABEL for v in values):
        raise FormatError("expected subject, predicate and object, three strings")
    subject, predicate, target = values
    return subject, predicate, target


def find_answer(text: str, published: bool = False) -> str:
    """What R1-SGG takes for the answer: the first closed answer (after any reasoning), or what follows the first
    `<answer>`, or everything; without code fences and, around the braces, the word "json". `published` takes that word
    out of labels too."""
    text = answer.without_thoughts(text)
    body, closed = answer.first_closed(text)
    if not closed:
        body = text.partition(answer.OPEN)[2] or text
    body = body.replace("```", "")
    start, end = body.find("{"), body.rfind("}") + 1
    if published or not 0 <= start < end:
        return body.replace("json", "").strip()
    return (body[:start].replace("json", "") + body[start:end] + body[end:].replace("json", "")).strip()


def _unfenced(body: str) -> str:
    body = body.strip()
    if body.startswith("```") and body.endswith("```"):
        body = body[3:-3].removeprefix("json")
    return body
