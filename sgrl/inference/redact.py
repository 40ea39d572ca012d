"""A secret kept out of all that is printed and stored, in whatever spelling it comes back."""

from __future__ import annotations

import base64
import html
import re

MARK = "[key]"
SHORTEST = 8  # characters of a secret, and of a part of one that gives it away
LONGEST = 64  # characters that are looked for; what follows them belongs to the secret too
_REST = r"""[^\s"'<>,(){}\[\]]{0,9999}"""


class Redactor:
    """Puts MARK in the place of a secret, in linear time.

    It is found as it is, in any case, as its first or its last half alone, percent-encoded or escaped as in JSON,
    Python or HTML (all of it or single characters), in hexadecimal, and in base64, also within a longer text.

    Args:
        secret: None, and one of fewer than 8 characters (as EMPTY, which servers without a key are given), hides
            nothing: it is no secret, and may be a word of an answer.
    """

    def __init__(self, secret: str | None):
        self._pattern = None
        if secret and len(secret) >= SHORTEST:
            data = secret.encode()
            half = len(secret) if len(secret) < 2 * SHORTEST else min(len(secret) // 2, LONGEST)
            found = [_spelled(secret[:half]) + _REST, _spelled(secret[-half:]), _digits(data[:half].hex())]
            found += [_digits(_base64(data, offset)) for offset in range(3)]
            self._pattern = re.compile("|".join(found), re.IGNORECASE)

    def __call__(self, text: str) -> str:
        return self._pattern.sub(MARK, text) if self._pattern else text


def _spelled(text: str) -> str:
    """A pattern of some characters, each as it is or escaped in its own way; no two ways match the same text."""
    return "".join(
        rf"(?:\\{{0,6}}{re.escape(c)}|\\{{1,6}}(?:u00|x){ord(c):02x}|%(?:25){{0,3}}{ord(c):02x}"
        rf"|&#0{{0,4}}{ord(c)};|&#x0{{0,4}}{ord(c):x};" + (f"|{html.escape(c)})" if c in "&<>\"'" else ")")
        for c in text
    )


def _base64(data: bytes, offset: int) -> str:
    """What is sure of its base64 (the first half of it) if `offset` bytes, modulo 3, stand before."""
    sure = 8 * (offset + len(data)) // 6
    text = base64.b64encode(bytes(offset) + data).decode()[(0, 2, 3)[offset] : sure]
    return text[: min(max(SHORTEST, len(text) // 2), LONGEST)]


def _digits(text: str) -> str:
    """A pattern of hexadecimal or base64 digits (of either alphabet) that go on at will."""
    both = {"+": r"(?:\+|-|%2B)", "-": r"(?:\+|-|%2B)", "/": r"(?:\\{0,6}/|_|%2F)", "_": r"(?:\\{0,6}/|_|%2F)"}
    return "".join(both.get(c, c) for c in text) + r"(?:[A-Za-z0-9+/_=\\-]|%2[BF]|%3D){0,9999}"
