"""Grammars for constrained decoding: the EBNF dialect of xgrammar and vLLM (`StructuredOutputsParams(grammar=...)`).

A text that the grammar accepts has the tags, the headers, labels of the vocabulary, coordinates inside the image and,
for the TOON layouts, counts that are the number of rows, ids 1..N in order, and relations between different, existing
objects. What no such grammar can say stays to the strict reader: x1 < x2 and y1 < y2, no repeated relation, the person
as the subject of `toon-pairs`, and in `json` that a relation's ids exist.

Use it for inference. In GRPO it silences the gradient: sampled log-probabilities are renormalised over the allowed
tokens, those of the trainer are not.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgrl.text import Codec, answer, get_codec
from sgrl.text.parsed import FormatError
from sgrl.text.productions import integers, literal
from sgrl.vocabulary import Vocabulary


@dataclass(frozen=True)
class Limits:
    """The largest graph, in objects and relations; the grammar grows with their product."""

    objects: int = 30
    relations: int = 40


def ebnf(
    codec: str | Codec,
    vocabulary: Vocabulary,
    width: int,
    height: int,
    limits: Limits = Limits(),
    tags: bool = True,
) -> str:
    """The grammar of a codec's texts.

    Args:
        codec: a codec or its name.
        vocabulary: its labels are the only ones allowed; `toon-pairs` needs groups.
        width, height: of the image, in pixels.
        limits: the largest graph.
        tags: whether the text stands between answer tags, as completions do.

    Raises:
        FormatError: an unknown codec, a vocabulary that the layout cannot write, or a limit below 1 object or 0
            relations.
    """
    codec = get_codec(codec)
    if limits.objects < 1 or limits.relations < 0 or width < 1 or height < 1:
        raise FormatError(
            f"expected width, height and objects of at least 1 and relations of at least 0, found {width}, {height}, "
            f"{limits.objects} and {limits.relations}"
        )
    line = literal("\n")
    rules = {"root": f"{literal(answer.OPEN)} {line} graph {line} {literal(answer.CLOSE)}" if tags else "graph"}
    rules |= {
        "x1": integers(0, width - 1),
        "y1": integers(0, height - 1),
        "x2": integers(1, width),
        "y2": integers(1, height),
    }
    rules |= codec.grammar(vocabulary, limits.objects, limits.relations)
    return "".join(f"{rule} ::= {body}\n" for rule, body in rules.items())
