"""Read a huge JSON file piece by piece: one long array item by item, and the small values around it.

`json` is used rather than an incremental parser such as ijson because annotation files written by Python may hold NaN,
which those refuse for the whole file, and because it is the faster of the two here. Memory stays at one item.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from sgrl.errors import SgrlError

_CHUNK = 1 << 18  # characters read at a time
_TAIL = 1 << 20  # bytes at the end of the file that are searched for values which follow the long array
_LARGEST_ITEM = 1 << 26  # characters; what is longer is a missing quote or bracket, not a record
_SPACE = re.compile(r"[ \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class _Text:
    """A window on a text file that slides forward."""

    def __init__(self, path: Path):
        self.path = path
        self.file = path.open(encoding="utf-8-sig")
        self.buffer, self.position, self.offset, self.ended = "", 0, 0, False

    def more(self, amount: int = _CHUNK) -> bool:
        """Read on; False at the end of the file."""
        if self.ended:
            return False
        try:
            chunk = self.file.read(amount)
        except UnicodeDecodeError as error:
            raise SgrlError(
                f"{self.path} is not UTF-8 text near character {self.offset + self.position:,} ({error.reason}); "
                "download it again, or unpack it first if it is an archive"
            ) from None
        self.offset += self.position
        self.buffer, self.position = self.buffer[self.position :] + chunk, 0
        self.ended = not chunk
        return not self.ended

    def peek(self) -> str:
        """The next character that is not white space, '' at the end of the file."""
        while True:
            self.position = _SPACE.match(self.buffer, self.position).end()
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            if not self.more():
                return ""

    def take(self, character: str, inside: str) -> None:
        found = self.peek()
        if found != character:
            self.fail(f"{character!r}", inside)
        self.position += 1

    def value(self, inside: str):
        """Decode the value that comes next."""
        self.peek()
        amount = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.position)
                if end < len(self.buffer) or self.ended:  # else a number may go on in the next chunk
                    self.position = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended or len(self.buffer) - self.position > _LARGEST_ITEM:
                    expected = (
                        error.msg.removeprefix("Expecting ") if error.msg.startswith("Expecting") else "valid JSON"
                    )
                    self.fail(expected, inside, error.pos)
            except RecursionError:
                self.fail("fewer nested brackets", inside)
            self.more(amount)
            amount *= 2  # each retry decodes from the start of the value: doubling keeps that linear

    def quick(self) -> tuple[object, bool]:
        """The value that comes next and True, if it and the comma behind it are in the buffer; else (None, False).

        For the items of a long array, where `value` and `take` would add a third to the time of decoding.
        """
        try:
            value, end = _DECODER.raw_decode(self.buffer, self.position)
        except (json.JSONDecodeError, RecursionError):
            return None, False  # `value` tells why
        comma = _COMMA.match(self.buffer, end)
        if comma is None:
            return None, False
        self.position = comma.end()
        return value, True

    def fail(self, expected: str, inside: str, at: int | None = None):
        """Raise what is wrong; `at` is a position in the buffer, by default the current one."""
        if self.ended and len(self.buffer) - self.position < _LARGEST_ITEM and self._cut_off():
            size = self.path.stat().st_size
            raise SgrlError(
                f"{self.path} is truncated: its {size:,} bytes end {inside}. Expected a complete JSON file; download "
                "or copy it again"
            )
        at = self.position if at is None else at
        raise SgrlError(
            f"{self.path} is damaged {inside}, at character {self.offset + at:,}: expected {expected}, found "
            f"{self.buffer[at : at + 40]!r}; download or copy it again"
        )

    def _cut_off(self) -> bool:
        """Whether everything up to the end of the file could be the beginning of a value."""
        if not self.buffer[self.position :].strip():
            return True
        try:
            _DECODER.raw_decode(self.buffer, self.position)
        except json.JSONDecodeError as error:
            return error.msg.startswith("Unterminated") or not self.buffer[error.pos :].strip(" \t\r\n-0123456789.eE")
        return False


def _members(text: _Text) -> Iterator[str]:
    """Step through the members of the top-level object; the caller consumes each value."""
    text.take("{", "before its first key")
    if text.peek() == "}":
        return
    while True:
        if text.peek() != '"':
            text.fail("a key", "between the top-level values")
        key = text.value("between the top-level values")
        text.take(":", f"after the key {key!r}")
        yield key
        if text.peek() == "}":
            return
        text.take(",", f"after the value of {key!r}")


def _array(text: _Text, key: str | None) -> Iterator:
    text.take("[", f"at {key!r}, which must be a list" if key else "at its beginning, which must be a list")
    if text.peek() == "]":
        text.position += 1
        return
    number = 0
    while True:
        item, comma = text.quick()
        if comma:
            yield item
            number += 1
            continue
        yield text.value(f"inside item {number}" + (f" of {key!r}" if key else ""))
        number += 1
        if text.peek() == "]":
            text.position += 1
            return
        text.take(",", f"after {number} items" + (f" of {key!r}" if key else ""))
        text.peek()  # past the white space


def _skip(text: _Text, key: str) -> None:
    """Pass over a value; a list is never in memory as a whole."""
    if text.peek() == "[":
        for _ in _array(text, key):
            pass
    else:
        text.value(f"inside {key!r}")


def walk(path: str | Path) -> Iterator[tuple[str, object]]:
    """(key, value) of the top-level object of `path` in file order; a list comes as one pair for each of its items.

    Raises SgrlError, when it gets there, for a file that is truncated or damaged.
    """
    text = _Text(Path(path))
    with text.file:
        for key in _members(text):
            if text.peek() == "[":
                for item in _array(text, key):
                    yield key, item
            else:
                yield key, text.value(f"inside {key!r}")


def items(path: str | Path, key: str | None) -> Iterator:
    """The items of the array `key` of the top-level object of `path`, or of the file itself (None), one at a time.

    Raises SgrlError, when it gets there, for a file that is truncated or damaged, and for one without `key`. Values
    that Python's json accepts beyond the standard (NaN, Infinity) come through.
    """
    text = _Text(Path(path))
    with text.file:
        if key is None:
            yield from _array(text, None)
            return
        keys = []
        for found in _members(text):
            if found == key:
                yield from _array(text, key)
                return
            keys.append(found)
            _skip(text, found)
        raise SgrlError(f"{path} has no {key!r}, found {', '.join(map(repr, keys)) or 'no key at all'}")


def values(path: str | Path, keys: tuple[str, ...], skip: str) -> dict:
    """The top-level values `keys` of `path`, those that exist, without keeping the long array `skip`.

    They may stand before or after `skip`. The end of the file is tried first, then the whole file is read, so a file
    that lacks some key costs one pass and a truncated one is reported before any work is done on it.
    """
    path = Path(path)
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _TAIL, 0))
        tail = file.read().decode("utf-8", errors="ignore")
    starts = [match.start() for key in keys for match in list(re.finditer(rf'"{re.escape(key)}"\s*:', tail))[-1:]]
    if len(starts) == len(keys):
        try:  # from the first of the keys to the end of the file: that works out only outside of the long array
            last = json.loads("{" + tail[min(starts) :])
        except (json.JSONDecodeError, RecursionError):
            last = {}
        if all(key in last for key in keys):
            return {key: last[key] for key in keys}
    found = {}
    text = _Text(path)
    with text.file:
        for key in _members(text):
            if key == skip or key not in keys:
                _skip(text, key)
            else:
                found[key] = text.value(f"inside {key!r}")
    return found
