"""What every codec can do."""

from __future__ import annotations

from sgrl.graph import SceneGraph
from sgrl.text.parsed import ParsedGraph, to_graph


class Codec:
    """Graph <-> text. One object per layout, without state; `sgrl.text.get_codec` hands it out.

    Attributes:
        name: "toon", "toon-pairs", "toon-lean" or "json".
        grouped: whether predicates of a ParsedGraph are "<group>__<label>".
    """

    name: str
    grouped = False

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
        raise NotImplementedError

    def body_of(self, text: str) -> str:
        """The part of any text in which the graph most likely stands: where lenient readers look for it."""
        raise NotImplementedError

    def diagnose(self, text: str | bytes | None) -> dict[str, float]:
        """What can be counted in any completion, valid or not. Never raises; linear time.

        Returns: no_relation (1.0 if not one relation can be read), num_objects, num_relations (readable ones between
        known, different objects), invalid_relation_fraction (of the non-empty rows after the relation header, in
        [0, 1]), has_answer_tags (1.0 if a closed pair is there).
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<codec {self.name}>"


def as_text(text: str | bytes | None) -> str:
    """Anything a model or a file may hand over, as a str."""
    if isinstance(text, bytes | bytearray):
        return bytes(text).decode("utf-8", "replace")
    return text if isinstance(text, str) else ""
