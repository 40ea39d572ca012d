"""Read a huge JSON file piece by piece: one long array item by item, and the small values around it.

`json` is used rather than an incremental parser such as ijson because annotation files written by Python may hold NaN,
which those refuse for the whole file, and because it is the faster of the two here. Memory stays at one item.

One hostile item does not hide the others: a number of thousands of digits is read as infinity, bytes that are no UTF-8
become lone surrogates, and where brackets are nested too deep an `Unreadable` stands for the item.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from sgrl.errors import SgrlError
from sgrl.files import open_text
from sgrl.graph import GraphError

_CHUNK = 1 << 18  # characters read at a time
_TAIL = 1 << 20  # bytes at the end of the file that are searched for values which follow the long array
_LARGEST_ITEM = 1 << 26  # characters; what is longer is a missing quote or bracket, not a record
_SPACE = re.compile(r"[ \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_TOKEN = re.compile(r'"(?>(?:[^"\\]|\\.)*)"|["\[\]{}]', re.S)
_DIGITS = 4000  # Python refuses to read longer whole numbers


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < _DIGITS else float(digits)


_DECODER = json.JSONDecoder()
_TOLERANT = json.JSONDecoder(parse_int=_whole)  # half as fast


class Unreadable:
    """Stands for an item of a list that cannot be decoded, and says why in messages that show it."""

    def __init__(self, reason: str):
        self._reason = reason

    def __repr__(self) -> str:
        return self._reason


class _Text:
    """A window on a text file that slides forward."""

    def __init__(self, path: Path):
        self.path = path
        self.file = open_text(path, "surrogateescape")
        self.buffer, self.position, self.offset, self.ended = "", 0, 0, False

    def more(self, amount: int = _CHUNK) -> bool:
        """Read on; False at the end of the file."""
        if self.ended:
            return False
        chunk = self.file.read(amount)
        self.offset += self.position
        self.buffer, self.position = self.buffer[self.position :] + chunk, 0
        self.ended = not chunk
        return not self.ended

    def peek(self) -> str:
        """The next character that is not white space, '' at the end of the file."""
        while True:
            space = _SPACE.match(self.buffer, self.position)
            self.position = space.end() if space else self.position
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            if not self.more():
                return ""

    def take(self, character: str, inside: str) -> None:
        found = self.peek()
        if found != character:
            self.fail(f"{character!r}", inside)
        self.position += 1

    def value(self, inside: str, item: bool = False):
        """Decode the value that comes next. An `item` may be an `Unreadable`; else that is an error."""
        self.peek()
        amount, decoder = _CHUNK, _DECODER
        while True:
            try:
                value, end = decoder.raw_decode(self.buffer, self.position)
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
                if not item:
                    self.fail("fewer nested brackets", inside)
                self._pass_brackets(inside)
                return Unreadable("brackets nested too deep to read")
            except ValueError:  # a number of too many digits
                if decoder is _TOLERANT:
                    raise
                decoder = _TOLERANT
                continue
            self.more(amount)
            amount *= 2  # each retry decodes from the start of the value: doubling keeps that linear

    def _pass_brackets(self, inside: str) -> None:
        """Go behind the list or object that comes next, however deep it is; memory stays at a chunk."""
        depth, amount = 0, _CHUNK
        while True:
            consumed = self.position
            for match in _TOKEN.finditer(self.buffer, self.position):
                if match[0] == '"':  # a string whose end is not in the buffer
                    break
                consumed = match.end()
                depth += (match[0] in "[{") - (match[0] in "]}")
                if not depth:
                    self.position = consumed
                    return
            else:
                consumed, amount = len(self.buffer), _CHUNK
            self.position = consumed
            if len(self.buffer) - consumed > _LARGEST_ITEM or not self.more(amount):
                self.fail("the end of its brackets", inside)
            amount *= 2

    def quick(self) -> tuple[object, bool]:
        """The value that comes next and True, if it and the comma behind it are in the buffer; else (None, False).

        For the items of a long array, where `value` and `take` would add a third to the time of decoding.
        """
        try:
            value, end = _DECODER.raw_decode(self.buffer, self.position)
        except (ValueError, RecursionError):
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
        if any("\udc80" <= character <= "\udcff" for character in self.buffer[at : at + 40]):
            raise SgrlError(
                f"{self.path} is not UTF-8 text near character {self.offset + at:,}; download it again, or unpack it "
                "first if it is an archive"
            )
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
        except (ValueError, RecursionError):
            pass
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
        yield text.value(f"inside item {number}" + (f" of {key!r}" if key else ""), item=True)
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
        text.value(f"inside {key!r}", item=True)


def read_json(path: Path):
    """What a small JSON file holds. Raises SgrlError for one that is truncated or damaged."""
    try:
        with open_text(path) as file:
            return _TOLERANT.decode(file.read())
    except (ValueError, RecursionError) as error:
        raise SgrlError(f"{path} is damaged or truncated ({error}); download it again") from None


def parse_json(text: str):
    """A JSON text that stands in a record. Raises GraphError for one that is none."""
    try:
        return _TOLERANT.decode(text)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"no JSON: {type(error).__name__}: {error}") from None


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
    that Python's json accepts beyond the standard (NaN, Infinity) come through, and `Unreadable` for an item that
    cannot be decoded.
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
        except (ValueError, RecursionError):
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
