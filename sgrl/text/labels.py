"""Labels inside a text: what they may look like, and when TOON wants them quoted."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from sgrl.text.parsed import FormatError
from sgrl.vocabulary import canonical

MAX_LABEL = 200
"""Characters; no reader takes anything longer for a label."""

# TOON (section 7.2) quotes what would be read as another type. Of all canonical labels only these would be.
KEYWORD_OR_NUMBER = r"(?:true|false|null|[0-9]++(?>(?:\.[0-9]++)?)(?>(?:e[+-]?+[0-9]++)?))"
_NEEDS_QUOTES = re.compile(KEYWORD_OR_NUMBER)


def letters(more: str) -> str:
    """A pattern's set of ASCII letters and digits, the characters `more`, and all that are not ASCII: `check_labels`
    finds out which of these are letters. It names what is not in it, which sre looks up in a table."""
    others = [character for character in map(chr, range(128)) if not (character.isalnum() or character in more)]
    return "[^" + re.escape("".join(others)) + "]"


LABEL = rf'(?:{letters("-")}++|"{KEYWORD_OR_NUMBER}")'
"""Pattern of a label cell; where hyphens may stand is checked by `check_labels`, a column at a time."""

WIDE_LABEL = rf'(?:{letters("._/-")}++|"{KEYWORD_OR_NUMBER}")'
"""The same for Action Genome, whose labels keep `_`, `.` and `/`."""


def quote(cell: str) -> str:
    """A cell of canonical labels, in quotes if TOON would not read it as a string otherwise."""
    return f'"{cell}"' if not cell or _NEEDS_QUOTES.fullmatch(cell) else cell


# Labels repeat. The caches are bounded, and so are the labels of graphs that come from a model (MAX_LABEL).
canonical_label = lru_cache(maxsize=8192)(canonical)


@lru_cache(maxsize=8192)
def quoted(label: str) -> str:
    """The cell for any label.

    >>> quoted("traffic light"), quoted("42")
    ('traffic-light', '"42"')
    """
    return quote(canonical(label))


@lru_cache(maxsize=8192)
def quoted_wide(label: str) -> str:
    """The same in the spelling of Action Genome."""
    return quote(canonical(label, wide=True))


_TO_HYPHENS = str.maketrans("._/", "---")


def check_labels(cells: list[str], first_line: int, wide: bool = False) -> list[str]:
    """Cells of one column that a pattern accepted -> labels, lower-cased and without quotes.

    Raises:
        FormatError: a label that begins or ends with a separator, or has two in a row, or is too long, or has
            characters of other scripts that are no letters or not in normal form. `first_line` is the line of the
            first cell.
    """
    joined = ",".join(cells)
    if not joined.isascii():
        _check_letters(joined.split(","), first_line, wide)
    joined = joined.lower()
    if " " in joined or "\t" in joined or '"' in joined:
        joined = ",".join([cell.strip(' \t"') for cell in joined.split(",")])
    hyphens = joined.translate(_TO_HYPHENS) if wide else joined
    if "-" in hyphens and ("--" in hyphens or "-," in hyphens or ",-" in hyphens or "-" in (hyphens[0], hyphens[-1])):
        for i, label in enumerate(hyphens.split(",")):
            if "--" in label or label.strip("-") != label:
                raise FormatError(
                    f"label {joined.split(',')[i]!r}: separators may only stand singly, between letters or digits",
                    first_line + i,
                )
    labels = joined.split(",") if cells else []
    if len(joined) > MAX_LABEL and max(map(len, labels)) > MAX_LABEL:
        raise FormatError(f"a label of more than {MAX_LABEL} characters")
    return labels


def _check_letters(cells: list[str], first_line: int, wide: bool) -> None:
    for i, cell in enumerate(cells):
        label = cell.strip(" \t")
        if label.isascii() or len(label) > MAX_LABEL:
            continue
        spelt = canonical(label, wide)
        if spelt != label.lower() or not unicodedata.is_normalized("NFKC", label):
            raise FormatError(f"label {label!r}: expected {spelt!r}", first_line + i)
