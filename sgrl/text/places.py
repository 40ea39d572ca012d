"""Where in a text each relation stands: see `Codec.places`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sgrl.text.lenient import RowReader

Span = tuple[int, int]
"""Of characters: the first, and the one behind the last."""


class Place(NamedTuple):
    """Of a relation in a text.

    predicate: as in a ParsedGraph.
    ids: of subject and object, numbered from 1 as they are written; None where they are no numbers.
    spans: of the characters that say which relation it is.
    """

    predicate: str
    ids: tuple[int, int] | None
    spans: list[Span]


# row, subject's id, object's id, end of the predicate -> the places of the ids
Ids = Callable[[str, str, str, int], list[Span]]


def around(row: str, subject: str, target: str, end: int) -> list[Span]:
    """Ids that stand first and last in a row."""
    return [(0, len(subject)), (row.rfind(target), len(row))]


_NUMBER = re.compile(r"[0-9]++")


def behind(row: str, subject: str, target: str, end: int) -> list[Span]:
    """Ids that stand behind the predicate."""
    return [match.span() for match in itertools.islice(_NUMBER.finditer(row, end), 2)]


def in_rows(text: str, table: str, read_row: RowReader, ids: Ids = around, grouped: bool = False) -> Iterator[Place]:
    """The relations in the rows behind the first `table[`. Never raises; linear time."""
    place = text.lower().find(f"{table}[")
    for line in text[place:].splitlines(keepends=True) if place >= 0 else ():
        row = line.strip()
        start = place + line.find(row)
        place += len(line)
        lowered = row.lower()
        position = 0
        for subject, predicate, target in read_row(row) or ():
            label = predicate.partition("__")[2] if grouped else predicate
            at = lowered.find(label, position)
            position = at + len(label)
            spans = [*ids(row, subject, target, position), (at, position)]
            yield Place(predicate, (int(subject), int(target)), [(start + a, start + b) for a, b in spans])
