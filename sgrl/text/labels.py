"""Labels inside a text: what they may look like, and when TOON wants them quoted."""

from __future__ import annotations

import re
from functools import lru_cache

from sgrl.text.parsed import FormatError
from sgrl.vocabulary import canonical

# TOON (section 7.2) quotes what would be read as another type. Of all canonical labels only these would be.
_KEYWORD_OR_NUMBER = r"(?:true|false|null|[0-9]++(?:\.[0-9]++)?+(?:e[+-]?+[0-9]++)?+)"
_NEEDS_QUOTES = re.compile(_KEYWORD_OR_NUMBER)

LABEL = rf'(?:[A-Za-z0-9-]++|"{_KEYWORD_OR_NUMBER}")'
"""Pattern of a label cell; where hyphens may stand is checked by `check_labels`, a column at a time."""

WIDE_LABEL = rf'(?:[A-Za-z0-9._/-]++|"{_KEYWORD_OR_NUMBER}")'
"""The same for Action Genome, whose labels keep `_`, `.` and `/`."""

_MISPLACED = re.compile(r"[-._/](?:[-._/,]|$)|(?:^|,)[-._/]")


def quote(cell: str) -> str:
    """A cell of canonical labels, in quotes if TOON would not read it as a string otherwise."""
    return f'"{cell}"' if not cell or _NEEDS_QUOTES.fullmatch(cell) else cell


@lru_cache(maxsize=65536)
def quoted(label: str) -> str:
    """The cell for any label.

    >>> quoted("traffic light"), quoted("42")
    ('traffic-light', '"42"')
    """
    return quote(canonical(label))


def check_labels(cells: list[str], first_line: int) -> list[str]:
    """Cells of one column that a pattern accepted -> labels, lower-cased and without quotes.

    Raises:
        FormatError: a label that begins or ends with a separator, or has two in a row. `first_line` is the line of
            the first cell.
    """
    joined = ",".join(cells).lower()
    if " " in joined or "\t" in joined or '"' in joined:
        joined = ",".join([cell.strip(' \t"') for cell in joined.split(",")])
    labels = joined.split(",") if cells else []
    if _MISPLACED.search(joined):
        for i, label in enumerate(labels):
            if _MISPLACED.search(label):
                raise FormatError(
                    f"label {label!r}: expected letters and digits, joined by single hyphens inside", first_line + i
                )
    return labels
