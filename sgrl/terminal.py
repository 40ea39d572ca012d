"""Foreign text made harmless for terminals and logs.

Labels, file names and what a server or a model answers may hold anything: escape sequences that rewrite the screen or
a window's title, line breaks that forge a line of a log, characters that turn the order of the text around.
"""

from __future__ import annotations

import logging
import re

# Control characters (C0, DEL, C1: all escape sequences begin with one), what is invisible or changes the direction of
# the text, line and paragraph separators, halves of surrogate pairs. Joiners (U+200C, U+200D) belong to words.
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: object, length: int | None = None) -> str:
    r"""Text in one line without any character that a terminal obeys: those become escapes as in Python's literals.

    What is printable already comes back as it is, so it may be applied twice. Linear time.

    Args:
        text: `str(text)` is taken.
        length: a longer result is cut to so many characters, the last one an ellipsis. None: never.

    >>> print(printable("cat\x1b[2J\ndog"))
    cat\x1b[2J\ndog
    """
    text = str(text)
    if length is not None and len(text) > length:
        text = text[: length - 1] + "…"  # before the work: escapes make it only longer
    text = _HARMFUL.sub(_escape, text)
    if length is not None and len(text) > length:
        text = text[: length - 1] + "…"
    return text


def _escape(match: re.Match) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable_lines(text: object) -> str:
    """Text whose own line breaks stay, for what is meant to have several lines."""
    return "\n".join(map(printable, str(text).split("\n")))


class LogFormatter(logging.Formatter):
    """A message is one line, whatever names and answers it quotes; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei) -> str:
        return printable_lines(super().formatException(ei))
