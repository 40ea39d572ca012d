"""Graph <-> text. `get_codec(name)` gives the codec of a layout; every codec has the methods of `codec.Codec`.

A codec is one file and one entry of `CODECS`; `register` adds one from a program.
"""

from __future__ import annotations

from sgrl.errors import suggest
from sgrl.text.codec import Codec
from sgrl.text.json import Json
from sgrl.text.parsed import FormatError, ParsedGraph
from sgrl.text.toon import Toon
from sgrl.text.toon_lean import ToonLean
from sgrl.text.toon_pairs import ToonPairs

CODECS: dict[str, Codec] = {codec.name: codec for codec in (Toon(), ToonPairs(), Json(), ToonLean())}
"""The codecs by their names."""


def register(codec: Codec) -> Codec:
    """Add a codec, so that its name is taken wherever those of `CODECS` are, in this process.

    Raises:
        FormatError: another codec has this name.
    """
    if CODECS.setdefault(codec.name, codec) is not codec:
        raise FormatError(f"there is a codec {codec.name!r} already, {CODECS[codec.name].title}; choose another name")
    return codec


def get_codec(name: str | Codec) -> Codec:
    """The codec called `name` (one of CODECS). Raises FormatError with the nearest name for any other."""
    if isinstance(name, Codec):
        return name
    try:
        return CODECS[name]
    except (KeyError, TypeError):
        raise FormatError(f"unknown codec {name!r}{suggest(name, CODECS)}") from None


def detect_codec(text: str) -> str:
    """The name of the codec that a reference is written in, by how it begins; with or without answer tags.

    Raises:
        FormatError: the text begins like none of the layouts.
    """
    if isinstance(text, str):
        for name, codec in CODECS.items():
            if codec.recognises(text):
                return name
    openings = " or ".join(dict.fromkeys(codec.opening for codec in CODECS.values()))
    raise FormatError(f"no graph: expected a text that begins with {openings}, found {str(text)[:60]!r}")


__all__ = ["CODECS", "Codec", "FormatError", "ParsedGraph", "detect_codec", "get_codec", "register"]
