"""The parts that codecs build their grammars of, in the EBNF dialect of xgrammar and vLLM: see `sgrl.text.grammar`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sgrl.text.labels import quote
from sgrl.vocabulary import canonical


def literal(text: str) -> str:
    """These characters.

    >>> literal('a "b"')
    '"a \\\\"b\\\\""'
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def labels(labels: Iterable[str], wide: bool = False, quoted: bool = True) -> str:
    """Any of these labels, as text spells them (`wide` as Action Genome's); `quoted` where TOON quotes them."""
    texts = dict.fromkeys(canonical(label, wide) for label in labels)
    return " | ".join(literal(quote(text) if quoted else text) for text in texts)


def integers(low: int, high: int) -> str:
    """Alternatives that match exactly the decimal numbers low..high (0 <= low <= high), without leading zeros.

    >>> integers(0, 9), integers(7, 23)
    ('[0-9]', '[7-9] | "1" [0-9] | "2" [0-3]')
    """
    parts = []
    while low <= high:
        if low == 0:
            last = min(9, high)
            parts.append(_digits(0, last))
            low = last + 1
            continue
        # the widest block of `low`'s digits whose last k digits are free
        k = 0
        while low % 10 ** (k + 1) == 0 and low + 10 ** (k + 1) - 1 <= high:
            k += 1
        step = 10**k
        prefix, digit = divmod(low // step, 10)
        last = min(9, digit + (high - low + 1) // step - 1)
        parts.append(" ".join(([literal(str(prefix))] if prefix else []) + [_digits(digit, last)] + ["[0-9]"] * k))
        low += (last - digit + 1) * step
    return " | ".join(parts)


def _digits(low: int, high: int) -> str:
    return f'"{low}"' if low == high else f"[{low}-{high}]"


def tables(
    object_header: str,
    object_row: Callable[[int], str],
    relation_header: str,
    relation_row: Callable[[int, str], str],
    max_objects: int,
    max_relations: int,
) -> dict[str, str]:
    """The rule `graph` of a TOON layout, and those that it needs: for every N, N object rows, then for every M, M
    relation rows between two different ids up to N.

    object_header: what follows `obj[N]`. object_row: id -> its row. relation_header: with `{}` for M. relation_row:
    subject's id, pattern of the object's -> its row.
    """
    line = literal("\n")
    rules = {"graph": " | ".join(f"graph{n}" for n in range(1, max_objects + 1))}
    for n in range(1, max_objects + 1):
        rules[f"graph{n}"] = f"{literal(f'obj[{n}]{object_header}')} objects{n} {line} relations{n}"
        before = f"objects{n - 1} " if n > 1 else ""
        rules[f"objects{n}"] = f"{before}{line} {object_row(n)}"
        counts = range(max_relations + 1 if n > 1 else 1)
        rules[f"relations{n}"] = " | ".join(
            literal(relation_header.format(m)) + (f" relation{n}{{{m}}}" if m else "") for m in counts
        )
        if n > 1 and max_relations:
            rules[f"relation{n}"] = (
                line + " (" + " | ".join(relation_row(i, f"({_others(i, n)})") for i in range(1, n + 1)) + ")"
            )
    return rules


def _others(i: int, n: int) -> str:
    """1..n without i."""
    return " | ".join([integers(low, high) for low, high in ((1, i - 1), (i + 1, n)) if low <= high])
