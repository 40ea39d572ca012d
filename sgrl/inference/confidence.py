"""How sure a model was of each relation, from the log-probabilities of the tokens that wrote it.

The confidence of a relation is the product of the probabilities of the tokens of its subject's id, its predicate and
its object's id, each given everything before: the chance that the model writes this relation at this place.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

from sgrl.text import Codec, ParsedGraph
from sgrl.text.places import Span


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
    written = codec.places(text)
    confidences: list[float | None] = []
    for subject, predicate, target in graph.relations:
        found = None
        for name, ids, spans in written:  # one pass in all: `written` goes on where the last relation was
            if name == predicate and (ids is None or ids == (subject + 1, target + 1)):
                found = spans
                break
        confidences.append(None if found is None else _probability(found, ends, logprobs))
        if found is None:  # ids out of order or missing objects: nothing was found, start over by predicates alone
            return _by_predicate(codec, graph, text, ends, logprobs)
    return confidences


def _by_predicate(codec: Codec, graph: ParsedGraph, text: str, ends, logprobs) -> list[float | None]:
    """The same without looking at ids, if the predicates are those that were written; else nothing."""
    written = list(codec.places(text))
    if [name for name, _, _ in written] != [predicate for _, predicate, _ in graph.relations]:
        return [None] * len(graph.relations)
    return [_probability(spans, ends, logprobs) for _, _, spans in written]


def _probability(spans: Sequence[Span], ends: Sequence[int], logprobs: Sequence[float]) -> float:
    """Of the tokens that wrote a character of the spans, each once."""
    tokens: set[int] = set()
    for start, end in spans:
        tokens.update(range(bisect.bisect_right(ends, start), bisect.bisect_left(ends, end) + 1))
    return round(math.exp(min(0.0, sum(logprobs[token] for token in tokens))), 6)
