"""How sure a model was of each relation, from the log-probabilities of the tokens that wrote it.

The confidence of a relation is the product of the probabilities of the tokens of its subject's id, its predicate and
its object's id, each given everything before: the chance that the model writes this relation at this place.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Iterator, Sequence

from sgrl.text import Codec, ParsedGraph
from sgrl.text.lenient import RowReader, lean_triplet_row, pairs_row, triplet_row

Span = tuple[int, int]

_TABLES: dict[str, tuple[str, RowReader]] = {
    "toon": ("rel[", triplet_row),
    "toon-lean": ("rel[", lean_triplet_row),
    "toon-pairs": ("rel_pairs[", pairs_row),
}
_ENTRY = re.compile(r"\{[^{}]*+\}")
_FIELD = re.compile(r'"(subject|predicate|object)"\s*+:\s*+"((?>(?:[^"\\]|\\.)*))"')
_NUMBER = re.compile(r"[0-9]++")


def relation_confidences(
    codec: Codec, graph: ParsedGraph, text: str, pieces: Sequence[str], logprobs: Sequence[float]
) -> list[float | None]:
    """The confidence in (0, 1] of each of `graph.relations`, None where the tokens of a relation cannot be told.

    Args:
        graph: what `codec` read from `text`, or what a repair left of that: relations in their order, some left out.
        pieces, logprobs: the tokens, see `Generation`; empty where the engine gives none.
    """
    if not pieces or "".join(pieces) != text:
        return [None] * len(graph.relations)
    ends = list(itertools.accumulate(map(len, pieces)))
    written = _relations(codec.name, text)
    confidences: list[float | None] = []
    for subject, predicate, target in graph.relations:
        found = None
        for name, ids, spans in written:  # one pass in all: `written` goes on where the last relation was
            if name == predicate and (ids is None or ids == (subject + 1, target + 1)):
                found = spans
                break
        confidences.append(None if found is None else _probability(found, ends, logprobs))
        if found is None:  # ids out of order or missing objects: nothing was found, start over by predicates alone
            return _by_predicate(codec.name, graph, text, ends, logprobs)
    return confidences


def _by_predicate(codec: str, graph: ParsedGraph, text: str, ends, logprobs) -> list[float | None]:
    """The same without looking at ids, if the predicates are those that were written; else nothing."""
    written = list(_relations(codec, text))
    if [name for name, _, _ in written] != [predicate for _, predicate, _ in graph.relations]:
        return [None] * len(graph.relations)
    return [_probability(spans, ends, logprobs) for _, _, spans in written]


def _probability(spans: Sequence[Span], ends: Sequence[int], logprobs: Sequence[float]) -> float:
    """Of the tokens that wrote a character of the spans, each once."""
    tokens: set[int] = set()
    for start, end in spans:
        tokens.update(range(bisect.bisect_right(ends, start), bisect.bisect_left(ends, end) + 1))
    return round(math.exp(min(0.0, sum(logprobs[token] for token in tokens))), 6)


def _relations(codec: str, text: str) -> Iterator[tuple[str, tuple[int, int] | None, list[Span]]]:
    """Predicate, ids and places of each relation in the order of the text."""
    if codec == "json":
        for entry in _ENTRY.finditer(text):
            fields = {m[1]: m for m in _FIELD.finditer(text, *entry.span())}
            if len(fields) == 3:
                yield fields["predicate"][2].lower(), None, [m.span(2) for m in fields.values()]
        return
    header, read_row = _TABLES[codec]
    place = text.lower().find(header)
    for line in text[place:].splitlines(keepends=True) if place >= 0 else ():
        row = line.strip()
        start = place + line.find(row)
        place += len(line)
        lowered = row.lower()
        position = 0
        for subject, predicate, target in read_row(row) or ():
            label = predicate.partition("__")[2] if codec == "toon-pairs" else predicate
            at = lowered.find(label, position)
            position = at + len(label)
            if codec == "toon-lean":
                numbers = [m.span() for m in itertools.islice(_NUMBER.finditer(row, position), 2)]
            else:
                numbers = [(0, len(subject)), (row.rfind(target), len(row))]
            spans = [*numbers, (at, position)]
            yield predicate, (int(subject), int(target)), [(start + a, start + b) for a, b in spans]
