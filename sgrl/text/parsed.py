"""What a codec reads out of a text: plain lists, so that scoring a thousand texts does not build a thousand graphs."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph

GROUPS = ("attention", "spatial", "contacting")
"""The relation groups of Action Genome, in the order of the columns of `toon-pairs`."""

MAX_OBJECTS, MAX_RELATIONS = 200, 400
"""What a strict reader accepts at most (SceneGraphVLM's reward, MAX_OBJS and MAX_RELS)."""

MAX_RECOVERED = 2000
"""Rows of each kind that a lenient reader keeps, so that a hostile text cannot make matching expensive."""

LARGEST = 1e9
"""Coordinates beyond this are as good as infinite: areas of such boxes would not be numbers."""

FLOAT = re.compile(r"[+-]?+(?>[0-9]{1,9}+(?>(?:\.[0-9]{0,30}+)?)|\.[0-9]{1,30}+)(?>(?:[eE][+-]?+[0-9]{1,2}+)?)")
"""A coordinate as lenient readers take it."""


# What was found, at the end of a reason; what stands in quotes or brackets; rows; numbers, but not those in names.
_SPECIFIC = re.compile(
    r"[,;:] found\b.*+| ?'(?>(?:[^'\\]|\\.)*)(?:'|\Z)| ?\"(?>(?:[^\"\\]|\\.)*)(?:\"|\Z)| \[[^\]]*+\]"
    r"|-?\b[0-9]++(?>(?:,[^,]*+,[0-9]++)?)[0-9.]*+",
    re.DOTALL,
)


class FormatError(SgrlError):
    """A text that breaks the layout.

    Attributes:
        line: 1-based line of the graph text (tags not counted), or None when no single line is at fault.
        reason: what was found and what was expected.
    """

    def __init__(self, reason: str, line: int | None = None):
        if len(reason) > 300:  # model text is quoted in reasons
            reason = reason[:300] + "..."
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line

    @property
    def kind(self) -> str:
        """The reason without the numbers and words of this text: what many errors have in common.

        >>> FormatError("obj[3] announces 3 rows, but 4 follow", 1).kind
        'obj[N] announces N rows, but N follow'
        >>> FormatError("expected a row of rel[M]{subj,pred,obj}:, found 'I see 2 cats'", 7).kind
        'expected a row of rel[M]{subj,pred,obj}:'
        """
        return _SPECIFIC.sub(lambda match: "N" if match[0].lstrip("-")[:1].isdigit() else "", self.reason).strip()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.line)


class SwappedCorners(str):
    """The issue of an object whose corners a lenient reader put in order."""


class UnreadableRelation(str):
    """The issue of a relation that a lenient reader left out."""


class ParsedGraph(NamedTuple):
    """A graph as lists.

    labels: N labels, lower-cased, otherwise as written.
    boxes: N tuples x1, y1, x2, y2 in pixels.
    relations: triplets (subject, predicate, object); subject and object are positions in `labels`. The predicate is
        lower-cased; in `toon-pairs` it is "<group>__<label>". Only `recover_parsed` may give a relation that names an
        object that does not exist: that end is -1 (metrics count such a relation as a false positive).
    """

    labels: list[str]
    boxes: list[tuple[float, float, float, float]]
    relations: list[tuple[int, str, int]]


def to_graph(parsed: ParsedGraph, width: int, height: int, grouped: bool = False) -> SceneGraph:
    """The SceneGraph of a ParsedGraph; relations with an end of -1, or without a predicate, are left out.

    `grouped`: predicates are "<group>__<label>".
    """
    relations = []
    for subject, predicate, target in parsed.relations:
        if subject < 0 or target < 0 or not predicate:
            continue
        group = None
        if grouped:
            group, _, predicate = predicate.partition("__")
        relations.append(Relation(subject, predicate, target, group))
    return SceneGraph(tuple(map(Object, parsed.labels, parsed.boxes)), tuple(relations), width, height)
