"""What every codec can do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sgrl.graph import SceneGraph
from sgrl.text import answer, pieces
from sgrl.text.parsed import FormatError, ParsedGraph, UnreadableRelation, to_graph
from sgrl.text.places import Place
from sgrl.vocabulary import Vocabulary


class Codec:
    """Graph <-> text. One object per layout, without state; `sgrl.text.get_codec` hands it out.

    What is true of one layout alone stands in its class. It must say `name`, `title`, `opening` and `rules`, and have
    `encode`, `parse`, `recover_parsed` and `recognises`. Without the rest there is no constrained decoding and no
    confidence, the tiny model spells texts in words and bytes, and the published reading is the lenient one.

    Attributes:
        name: in options and files.
        title: what tables call it.
        opening: how its texts begin, for messages.
        rules: what a prompt says of the layout beside an example, in lines that begin with a hyphen.
        grouped: whether predicates of a ParsedGraph are "<group>__<label>".
        person_subject: whether every subject must be labelled "person".
        is_json: whether its texts are the JSON objects of R1-SGG, whose rewards read them in a way of their own.
        indent: blanks before a row of a layout that is TOON; None for others.
        relation_table: the name of the table of relations, where there is one.
        published_label: labels as SceneGraphVLM's published rewards for this layout know them; None without such.
        token_pattern: pattern of what may be one token of a tokenizer that is made for the layout.
    """

    name: str
    title: str
    opening: str
    rules: str
    grouped = False
    person_subject = False
    is_json = False
    indent: int | None = None
    relation_table: str | None = None
    published_label: re.Pattern[str] | None = None
    token_pattern = pieces.TAG + pieces.WORD

    def encode(self, graph: SceneGraph) -> str:
        """The text of a graph, without answer tags. Labels become canonical, coordinates whole pixels.

        A box that rounding would make empty keeps one pixel, so that a valid graph makes a valid text.
        """
        raise NotImplementedError

    def parse(self, text: str, width: int, height: int, tags: bool | None = True) -> ParsedGraph:
        """Strict reading, fast: the graph that rewards score.

        Args:
            text: the completion.
            tags: True demands the answer tags; False takes a bare graph text, as references are stored; None either.
            width, height: the image in pixels; every box must lie inside it and have an area.

        Raises:
            FormatError: any departure from the layout, with the reason and, if one is at fault, the line.
        """
        raise NotImplementedError

    def decode(self, text: str, width: int, height: int, tags: bool | None = True) -> SceneGraph:
        """`parse`, as a SceneGraph."""
        return to_graph(self.parse(text, width, height, tags), width, height, self.grouped)

    def row(self, cells: Sequence[str], separator: str) -> list[str]:
        """In layouts with groups, a row's cells of labels -> "<group>__<label>"; raises FormatError (reason only)."""
        raise NotImplementedError

    def recover_parsed(self, text: str | bytes | None, width: int, height: int) -> tuple[ParsedGraph, list[str]]:
        """Lenient reading: whatever can be understood, and what was wrong. Never raises; linear time.

        A relation that names an unknown object has -1 there; repeated relations and self-relations are kept.
        No object means that the text holds no graph.
        """
        raise NotImplementedError

    def recover(self, text: str | bytes | None, width: int, height: int) -> tuple[SceneGraph, list[str]]:
        """`recover_parsed`, as a SceneGraph, without the relations that name an unknown object or no predicate."""
        parsed, issues = self.recover_parsed(text, width, height)
        return to_graph(parsed, width, height, self.grouped), issues

    def recover_published(self, text: str | bytes | None) -> tuple[ParsedGraph, dict[int, int]]:
        """What the published evaluator of this layout reads, for protocols that reproduce its numbers, and the objects
        that share an id, {position: the first one's position}: a relation means the one that is matched. Never raises;
        linear time."""
        return self.recover_parsed(text, 1, 1)[0], {}

    def recognises(self, text: str) -> bool:
        """Whether a reference, with or without answer tags, begins like one of this layout and of no other."""
        raise NotImplementedError

    def body_of(self, text: str) -> str:
        """The part of any text in which the graph most likely stands: where lenient readers look for it."""
        return answer.first_closed(answer.without_thoughts(text))[0]

    def diagnose(self, text: str | bytes | None) -> dict[str, float]:
        """What can be counted in any completion, valid or not. Never raises; linear time.

        Returns: no_relation (1.0 if not one relation can be read), num_objects, num_relations (readable ones between
        known, different objects), invalid_relation_fraction (of the non-empty rows after the relation header, in
        [0, 1]), has_answer_tags (1.0 if a closed pair is there).
        """
        parsed, issues = self.recover_parsed(text, 1, 1)
        return diagnosis(as_text(text), parsed, issues)

    def grammar(self, vocabulary: Vocabulary, max_objects: int, max_relations: int) -> dict[str, str]:
        """The rules of a grammar for constrained decoding (`sgrl.text.grammar`): {name: body}, of which `graph` is a
        whole graph. They may use `x1` to `y2`, the coordinates inside the image; `productions` has parts.

        Raises:
            FormatError: the layout has no grammar, or none for this vocabulary.
        """
        raise FormatError(f"the layout {self.name!r} has no grammar to decode by")

    def places(self, text: str) -> Iterator[Place]:
        """Where in a text each relation stands, in the order of `recover_parsed`. Never raises; linear time."""
        return iter(())

    def tokens(self, objects: list[str], predicates: list[str], largest: int, rows: int) -> list[str]:
        """Every such token of the graphs with these labels, spelt as in text, numbers up to `largest` and at
        most `rows` rows a table."""
        return list(pieces.TAGS)

    def __repr__(self) -> str:
        return f"<codec {self.name}>"


def diagnosis(text: str, parsed: ParsedGraph, issues: list[str]) -> dict[str, float]:
    """`Codec.diagnose` of a text from what was read in it."""
    valid = sum(s >= 0 and o >= 0 and s != o for s, _, o in parsed.relations)
    rows = len(parsed.relations) + sum(isinstance(issue, UnreadableRelation) for issue in issues)
    return {
        "no_relation": float(valid == 0),
        "num_objects": float(len(parsed.labels)),
        "num_relations": float(valid),
        "invalid_relation_fraction": (rows - valid) / rows if rows else 0.0,
        "has_answer_tags": float(answer.first_closed(answer.without_thoughts(text))[1]),
    }


def as_text(text: str | bytes | None) -> str:
    """Anything a model or a file may hand over, as a str."""
    if isinstance(text, bytes | bytearray):
        return bytes(text).decode("utf-8", "replace")
    return text if isinstance(text, str) else ""
