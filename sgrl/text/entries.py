"""The entries of a JSON answer that is no JSON any more: cut off, broken somewhere, quoted as Python quotes.

Entries are found by their braces alone, so that what is wrong with one, or around it, costs no other.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sgrl.text.parsed import FLOAT, MAX_RECOVERED

# A brace that does not open the whole graph, up to the next brace; a value may be an object of its own.
_ENTRY = re.compile(r"\{(?!\s*+[\"']?+(?:objects|relationships)\b)((?>(?:[^{}:]++|:(?>(?:\s*+\{[^{}]*+\})?))*))(\}?+)")
_FIELD = re.compile(
    r"\b(id|bbox|subject|predicate|object)\b[\"']?+\s*+[:=]\s*+"
    r"(?:\"((?>(?:[^\"\\]++|\\.)*))\"|'((?>(?:[^'\\]++|\\.)*))'|[\[(]([^\[\]()]*+)([\])]?+))",
    re.DOTALL,
)
_STRAIGHT = str.maketrans("“”„‟’‘", '""""\'\'')


def read(body: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Objects and relationships, at most MAX_RECOVERED of each, as far as they are written. Linear in the length.

    >>> read("{'objects': [{'id': 'cat.1', 'bbox': [1, 2, 3, 4],}, {'id': 'mat.2', 'bbox': [5, 6")
    ([{'id': 'cat.1', 'bbox': [1.0, 2.0, 3.0, 4.0]}, {'id': 'mat.2'}], [])
    """
    objects: list[dict[str, Any]] = []
    relations: list[dict[str, Any]] = []
    for match in _ENTRY.finditer(body):
        fields = _fields(match[1], bool(match[2])) if len(match[1]) > 2 else {}
        if not fields.keys().isdisjoint(("subject", "predicate")):
            relations.append(fields)
        elif not fields.keys().isdisjoint(("id", "bbox")):
            objects.append(fields)
        if min(len(objects), len(relations)) > MAX_RECOVERED:
            break
    return objects[:MAX_RECOVERED], relations[:MAX_RECOVERED]


def _fields(text: str, closed: bool) -> dict[str, Any]:
    """The known fields of an entry; of one that was cut off, those that end."""
    found: dict[str, Any]
    if closed:
        try:
            found = json.loads(f"{{{text}}}")
            return found
        except (ValueError, RecursionError):
            pass
    found = {}
    for name, double, single, numbers, bracket in _FIELD.findall(text.translate(_STRAIGHT)):
        if name != "bbox":
            found.setdefault(name, _unescaped(double or single))
        elif bracket or closed or numbers[-1:] in (",", " ", "\n"):  # else a digit may be missing
            cells = numbers.replace(",", " ").split()
            if all(map(FLOAT.fullmatch, cells)):
                found.setdefault(name, [float(cell) for cell in cells])
    return found


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:  # single quotes may hold double ones
        return text.replace("\\'", "'")
