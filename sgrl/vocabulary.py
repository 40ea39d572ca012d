"""Class lists of the data sets, and the one spelling that labels have in text."""

from __future__ import annotations

import re
import unicodedata

UNNAMED = "unknown"
"""The text form of a label without a single letter or digit."""

_NOT_ALNUM = re.compile(r"[^a-z0-9]+")
_NOT_WIDE = re.compile(r"[^a-z0-9._/]+")
_DOUBLED = re.compile(r"[-._/]*([-._/])[-._/]*")


def canonical(label: str, wide: bool = False) -> str:
    """The spelling of a label in text: lower case, words joined by single hyphens. `wide` also keeps `_`, `.` and `/`
    between words, as Action Genome spells. Accents are dropped; what has no letter or digit left becomes "unknown".

    >>> canonical("Traffic light"), canonical("in_front_of"), canonical("cup/glass/bottle", wide=True)
    ('traffic-light', 'in-front-of', 'cup/glass/bottle')
    """
    label = label.lower()
    if not label.isascii():
        label = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    if wide:
        text = _DOUBLED.sub(r"\1", _NOT_WIDE.sub("-", label)).strip("-._/")
    else:
        text = _NOT_ALNUM.sub("-", label).strip("-")
    return text or UNNAMED
