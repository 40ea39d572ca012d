"""Graph <-> text. `get_codec(name)` gives the codec of a layout; every codec has the methods of `codec.Codec`."""

from __future__ import annotations

import re

from sgrl.errors import suggest
from sgrl.text.codec import Codec
from sgrl.text.json import Json
from sgrl.text.parsed import FormatError, ParsedGraph
from sgrl.text.toon import Toon
from sgrl.text.toon_lean import ToonLean
from sgrl.text.toon_pairs import ToonPairs

_CODECS: dict[str, Codec] = {codec.name: codec for codec in (Toon(), ToonPairs(), Json(), ToonLean())}
CODECS = tuple(_CODECS)


def get_codec(name: str | Codec) -> Codec:
    """The codec called `name` (one of CODECS). Raises FormatError with the nearest name for any other."""
    if isinstance(name, Codec):
        return name
    try:
        return _CODECS[name]
    except (KeyError, TypeError):
        raise FormatError(f"unknown codec {name!r}{suggest(name, CODECS)}") from None


_HEADERS = re.compile(
    r"\s*+(?>(?:<answer>\s*+)?)(?:(?P<json>\{)|obj\[[^{\n]{0,20}\{(?P<first>\w{0,20}))", re.IGNORECASE
)
_PAIRS = re.compile(r"^[ \t]*+rel_pairs\[", re.IGNORECASE | re.MULTILINE)


def detect_codec(text: str) -> str:
    """The name of the codec that a reference is written in, by its headers; with or without answer tags.

    Raises:
        FormatError: the text begins like none of the layouts.
    """
    match = _HEADERS.match(text) if isinstance(text, str) else None
    if match and match["json"]:
        return "json"
    if match and match["first"].lower() == "name":
        return "toon-lean"
    if match and match["first"].lower() == "id":
        return "toon-pairs" if _PAIRS.search(text) else "toon"
    raise FormatError(
        f"no graph: expected a text that begins with obj[N]{{...}}: or a JSON object, found {str(text)[:60]!r}"
    )


__all__ = ["CODECS", "Codec", "FormatError", "ParsedGraph", "detect_codec", "get_codec"]
