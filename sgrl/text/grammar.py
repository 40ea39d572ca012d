"""Grammars for constrained decoding: the EBNF dialect of xgrammar and vLLM (`StructuredOutputsParams(grammar=...)`).

A text that the grammar accepts has the tags, the headers, labels of the vocabulary, coordinates inside the image and,
for the TOON layouts, counts that are the number of rows, ids 1..N in order, and relations between different, existing
objects. What no such grammar can say stays to the strict reader: x1 < x2 and y1 < y2, no repeated relation, the person
as the subject of `toon-pairs`, and in `json` that a relation's ids exist.

Use it for inference. In GRPO it silences the gradient: sampled log-probabilities are renormalised over the allowed
tokens, those of the trainer are not.
"""

from __future__ import annotations

from collections.abc import Iterable

from sgrl.text import answer
from sgrl.text.codec import Codec
from sgrl.text.labels import quote
from sgrl.text.parsed import GROUPS, FormatError
from sgrl.text.toon_pairs import LIMITS
from sgrl.vocabulary import Vocabulary, canonical


def ebnf(
    codec: str | Codec,
    vocabulary: Vocabulary,
    width: int,
    height: int,
    max_objects: int = 30,
    max_relations: int = 40,
    tags: bool = True,
) -> str:
    """The grammar of a codec's texts.

    Args:
        codec: "toon", "toon-lean", "toon-pairs" or "json".
        vocabulary: its labels are the only ones allowed; `toon-pairs` needs groups.
        width, height: of the image, in pixels.
        max_objects, max_relations: the largest graph; the grammar grows with their product.
        tags: whether the text stands between answer tags, as completions do.

    Raises:
        FormatError: `toon-pairs` for a vocabulary without groups, or a limit below 1 object or 0 relations.
    """
    name = codec.name if isinstance(codec, Codec) else codec
    if max_objects < 1 or max_relations < 0 or width < 1 or height < 1:
        raise FormatError(
            f"expected width, height and max_objects of at least 1 and max_relations of at least 0, found {width}, "
            f"{height}, {max_objects} and {max_relations}"
        )
    if name not in _WRITERS:
        raise FormatError(f"no grammar for the codec {name!r}; expected one of {', '.join(_WRITERS)}")
    rules = {"root": f"{_text(answer.OPEN)} {_text(chr(10))} graph {_text(chr(10))} {_text(answer.CLOSE)}"}
    if not tags:
        rules["root"] = "graph"
    rules |= {
        "x1": _integers(0, width - 1),
        "y1": _integers(0, height - 1),
        "x2": _integers(1, width),
        "y2": _integers(1, height),
    }
    rules |= _WRITERS[name](vocabulary, max_objects, max_relations)
    return "".join(f"{rule} ::= {body}\n" for rule, body in rules.items())


def _toon(vocabulary: Vocabulary, max_objects: int, max_relations: int) -> dict[str, str]:
    return {
        "name": _labels(vocabulary.objects),
        "predicate": _labels(vocabulary.predicates),
        **_tables(
            object_header="{id,name,x1,y1,x2,y2}:",
            object_row=lambda i: f'{_text(f"  {i},")} name "," x1 "," y1 "," x2 "," y2',
            relation_header="rel[{}]{{subj,pred,obj}}:",
            relation_row=lambda subject, target: f'{_text(f"  {subject},")} predicate "," {target}',
            max_objects=max_objects,
            max_relations=max_relations,
        ),
    }


def _toon_lean(vocabulary: Vocabulary, max_objects: int, max_relations: int) -> dict[str, str]:
    return {
        "name": _labels(vocabulary.objects),
        "predicate": _labels(vocabulary.predicates),
        **_tables(
            object_header="{name,x1,y1,x2,y2}:",
            object_row=lambda i: '" " name "," x1 "," y1 "," x2 "," y2',
            relation_header="rel[{}]{{pred,subj,obj}}:",
            relation_row=lambda subject, target: f'" " predicate {_text(f",{subject},")} {target}',
            max_objects=max_objects,
            max_relations=max_relations,
        ),
    }


def _toon_pairs(vocabulary: Vocabulary, max_objects: int, max_relations: int) -> dict[str, str]:
    groups = vocabulary.groups or {}
    missing = [group for group in GROUPS if group not in groups]
    if missing:
        raise FormatError(
            f"toon-pairs needs the groups {', '.join(GROUPS)}; {vocabulary.name!r} has no {missing[0]!r}"
        )
    rules = {"name": _labels(vocabulary.objects, wide=True)}
    for group, limit in zip(GROUPS, LIMITS, strict=True):
        rules[group] = f"{group}-label" + (f' ("|" {group}-label){{0,{limit - 1}}}' if limit > 1 else "")
        rules[f"{group}-label"] = _labels(groups[group], wide=True)
    empty = _text('""')
    rules["some-contacting"] = f"contacting | {empty}"
    rules["some-spatial"] = f"spatial | {empty}"
    rules["cells"] = (
        f'attention "," some-spatial "," some-contacting | {empty} "," spatial "," some-contacting | '
        f'{empty} "," {empty} "," contacting'
    )
    return rules | _tables(
        object_header="{id,name,x1,y1,x2,y2}:",
        object_row=lambda i: f'{_text(f"  {i},")} name "," x1 "," y1 "," x2 "," y2',
        relation_header="rel_pairs[{}]{{subj,attention,spatial,contacting,obj}}:",
        relation_row=lambda subject, target: f'{_text(f"  {subject},")} cells "," {target}',
        max_objects=max_objects,
        max_relations=max_relations,
    )


def _tables(object_header, object_row, relation_header, relation_row, max_objects, max_relations) -> dict[str, str]:
    """For every N: N object rows, then for every M: M relation rows between two different ids up to N."""
    line = _text("\n")
    rules = {"graph": " | ".join(f"graph{n}" for n in range(1, max_objects + 1))}
    for n in range(1, max_objects + 1):
        rules[f"graph{n}"] = f"{_text(f'obj[{n}]{object_header}')} objects{n} {line} relations{n}"
        before = f"objects{n - 1} " if n > 1 else ""
        rules[f"objects{n}"] = f"{before}{line} {object_row(n)}"
        counts = range(max_relations + 1 if n > 1 else 1)
        rules[f"relations{n}"] = " | ".join(
            _text(relation_header.format(m)) + (f" relation{n}{{{m}}}" if m else "") for m in counts
        )
        if n > 1 and max_relations:
            rules[f"relation{n}"] = (
                line + " (" + " | ".join(relation_row(i, f"({_others(i, n)})") for i in range(1, n + 1)) + ")"
            )
    return rules


def _others(i: int, n: int) -> str:
    """1..n without i."""
    return " | ".join([_integers(low, high) for low, high in ((1, i - 1), (i + 1, n)) if low <= high])


def _json(vocabulary: Vocabulary, max_objects: int, max_relations: int) -> dict[str, str]:
    more_relations = f"(relation {_text(', ')}){{0,{max_relations - 1}}} relation" if max_relations else ""
    return {
        "name": _labels(vocabulary.objects, quoted=False),
        "predicate": _labels(vocabulary.predicates, quoted=False),
        "id": f'name "." ({_integers(1, max_objects)}) {_text(chr(34))}',
        "object": f'{_text(OBJECT[0])} id {_text(OBJECT[1])} x1 ", " y1 ", " x2 ", " y2 {_text("]}")}',
        "relation": f'{_text(RELATION[0])} id {_text(RELATION[1])} predicate {_text(RELATION[2])} id "}}"',
        "objects": f"(object {_text(', ')}){{0,{max_objects - 1}}} object",
        "relations": f"({more_relations})?" if max_relations else '""',
        "graph": f"{_text(GRAPH[0])} objects {_text(GRAPH[1])} relations {_text(']}')}",
    }


GRAPH = ('{"objects": [', '], "relationships": [')
OBJECT = ('{"id": "', ', "bbox": [')
RELATION = ('{"subject": "', ', "predicate": "', '", "object": "')

_WRITERS = {"toon": _toon, "toon-lean": _toon_lean, "toon-pairs": _toon_pairs, "json": _json}


def _text(literal: str) -> str:
    escaped = literal.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _labels(labels: Iterable[str], wide: bool = False, quoted: bool = True) -> str:
    texts = dict.fromkeys(canonical(label, wide) for label in labels)
    return " | ".join(_text(quote(text) if quoted else text) for text in texts)


def _integers(low: int, high: int) -> str:
    """Alternatives that match exactly the decimal numbers low..high (0 <= low <= high), without leading zeros.

    >>> _integers(0, 9), _integers(7, 23)
    ('[0-9]', '[7-9] | "1" [0-9] | "2" [0-3]')
    """
    parts = []
    while low <= high:
        if low == 0:
            last = min(9, high)
            parts.append(_class(0, last))
            low = last + 1
            continue
        # the widest block of `low`'s digits whose last k digits are free
        k = 0
        while low % 10 ** (k + 1) == 0 and low + 10 ** (k + 1) - 1 <= high:
            k += 1
        step = 10**k
        prefix, digit = divmod(low // step, 10)
        last = min(9, digit + (high - low + 1) // step - 1)
        parts.append(" ".join(([_text(str(prefix))] if prefix else []) + [_class(digit, last)] + ["[0-9]"] * k))
        low += (last - digit + 1) * step
    return " | ".join(parts)


def _class(low: int, high: int) -> str:
    return f'"{low}"' if low == high else f"[{low}-{high}]"
