"""Graph <-> text. `get_codec(name)` gives the codec of a layout; every codec has the methods of `codec.Codec`."""

from __future__ import annotations

from sgrl.errors import suggest
from sgrl.text.codec import Codec
from sgrl.text.parsed import FormatError, ParsedGraph
from sgrl.text.toon import Toon
from sgrl.text.toon_pairs import ToonPairs

_CODECS: dict[str, Codec] = {codec.name: codec for codec in (Toon(), ToonPairs())}
CODECS = tuple(_CODECS)


def get_codec(name: str | Codec) -> Codec:
    """The codec called `name` (one of CODECS). Raises FormatError with the nearest name for any other."""
    if isinstance(name, Codec):
        return name
    try:
        return _CODECS[name]
    except (KeyError, TypeError):
        raise FormatError(f"unknown codec {name!r}{suggest(name, CODECS)}") from None


__all__ = ["CODECS", "Codec", "FormatError", "ParsedGraph", "get_codec"]
