"""Go through a pickled dictionary item by item, in the memory of a few, with the allow-list of safe_pickle.

A pickle can only be loaded whole, for two reasons, and both can be taken away from its bytes. It fills one dictionary:
here the opcode that makes it is replaced by one that asks for an object of ours, whose `__setitem__` hands each item
on. And it memorises every container, in case it is referred to again: here the opcodes that do so are left out where
nothing ever asks for what they memorise, which a first pass over the file finds out. Files of protocols 2 and 3, as
Python wrote them by default for years, are read like this; others are loaded whole.

Tuples become lists, but for the arguments of a call: as keys, nested and shared ones would never end, and a list is
refused at once.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.readers import safe_pickle

_CHUNK = 1 << 20  # bytes
_LONGEST = 1 << 12  # bytes of an opcode that is not looked at twice; longer ones are strings
_NAME = b"data_prep\nitems\n"  # what the rewritten pickle asks for in place of its dictionary


def _lengths(opcode: bytes, size: int, lengths) -> list[bytes]:
    """Patterns of strings of these lengths. A pattern cannot count, so common lengths are spelt out."""
    counts = (re.escape(opcode + length.to_bytes(size, "little")) + b".{%d}" % length for length in lengths)
    return list(counts)


# Opcodes with arguments of fixed length: no argument; numbers; strings of usual lengths.
_PLAIN = b"|".join(
    [
        rb"[(\]}012NaebosuR\x81\x88\x89]|K.|M..|J....|G.{8}",
        *_lengths(b"X", 4, range(41)),
        *_lengths(b"C", 1, (1, 4, 8, 16, 32, 68, 136, 204)),
        *_lengths(b"U", 1, range(41)),
    ]
)
_GET, _PUT, _TUPLE = rb"h.|j....", rb"q.|r....", rb"[t)\x85-\x87]"
_RUN = re.compile(rb"(?>(?:%b|%b|%b|%b)*)" % (_PLAIN, _GET, _PUT, _TUPLE), re.S)
_GETS = re.compile(rb"(?>(?:%b|%b|%b)*)(?:h(.)|j(....)|\Z)" % (_PLAIN, _PUT, _TUPLE), re.S)
_EDITS = re.compile(rb"((?>(?:%b|%b)*))(?:(%b)|(%b(?:%b)?R?)|\Z)" % (_PLAIN, _GET, _PUT, _TUPLE, _PUT), re.S)


class _Other(Exception):
    """Not a pickle that can be gone through here."""


def each_item(path: str | Path, take: Callable[[object, object], None]) -> None:
    """Call `take(key, value)` for every item of the dictionary in a pickle file, in the order of the file.

    A key that stands twice comes twice. What is not a dictionary comes as one item, (None, the object).

    Raises SgrlError as `safe_pickle.load` does; items before the damage have come by then.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            asked = _asked(path, file)
    except _Other:
        found = safe_pickle.load(path)
        for key, value in found.items() if isinstance(found, dict) else [(None, found)]:
            take(key, value)
        return
    with path.open("rb") as file:
        stream = io.BufferedReader(_Chunks(_rewritten(file, asked)), _CHUNK)
        safe_pickle.load_stream(path, stream, {("data_prep", "items"): _Items(take)})


class _Items:
    """Stands where the dictionary would."""

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[object, object], None]):
        self._take = take

    def __setitem__(self, key, value) -> None:
        self._take(key, value)


def _asked(path: Path, file) -> set[bytes]:
    """The opcodes that memorise something which is asked for later."""
    numbers = set()
    for is_run, piece in _pieces(file):
        if is_run:
            for short, long in _GETS.findall(piece):
                if short or long:
                    numbers.add(int.from_bytes(short or long, "little"))
    if max(numbers, default=0) > path.stat().st_size:  # the unpickler makes room for all numbers below
        raise _Other
    asked = {b"r" + number.to_bytes(4, "little") for number in numbers}
    return asked | {b"q" + number.to_bytes(1, "little") for number in numbers if number < 256}


def _rewritten(file, asked: set[bytes]) -> Iterator[bytes]:
    yield b"\x80\x03c" + _NAME
    held = b""  # a tuple at the end of a piece: what follows decides
    for is_run, piece in _pieces(file):
        if not is_run:
            yield _edited(held, asked) + piece
            held = b""
            continue
        edits = _EDITS.findall(held + piece)
        while edits and not any(edits[-1]):
            edits.pop()
        held = b""
        if edits and edits[-1][2] and not _calls(edits[-1][2]):
            plain, _, held = edits.pop()
            edits.append((plain, b"", b""))
        kept = [
            plain + _edited(made, asked) if made else plain + put if put in asked else plain
            for plain, put, made in edits
        ]
        yield b"".join(kept)


def _edited(opcodes: bytes, asked: set[bytes]) -> bytes:
    """What makes a tuple, with what memorises it: a list instead, but for the arguments of a call."""
    made, put = opcodes[:1], opcodes[1:]
    if _calls(opcodes):
        return made + b"R"  # nobody asks for arguments
    return made and made + b"Q" + (put if put in asked else b"")


def _pieces(file) -> Iterator[tuple[bool, bytes]]:
    """The bytes behind the opcode of the dictionary: (True, opcodes that the patterns know) and (False, one other)."""
    if file.read(3) not in (b"\x80\x02}", b"\x80\x03}"):
        raise _Other
    buffer, position, ended = b"", 0, False
    while True:
        if len(buffer) - position < _LONGEST and not ended:
            chunk = file.read(_CHUNK)
            buffer, position, ended = buffer[position:] + chunk, 0, not chunk
        run = _RUN.match(buffer, position)
        end = run.end() if run else position
        if end > position:
            yield True, buffer[position:end]
            position = end
            if len(buffer) - position < _LONGEST and not ended:
                continue  # the run may go on
        opcode = buffer[position : position + 1]
        if opcode == b".":
            yield False, opcode
            return
        length = _length(opcode, buffer, position)
        if position + length > len(buffer):
            buffer += file.read(position + length - len(buffer))
        if position + length > len(buffer):
            raise _Other
        yield False, buffer[position : position + length]
        position += length


def _length(opcode: bytes, buffer: bytes, position: int) -> int:
    """Bytes of the opcode with its argument."""
    if opcode in (b"X", b"B", b"T"):
        return 5 + int.from_bytes(buffer[position + 1 : position + 5], "little")
    if opcode in (b"C", b"U", b"\x8a"):
        return 2 + buffer[position + 1] if position + 1 < len(buffer) else 2
    if opcode == b"c":
        line = buffer.find(b"\n", position)
        end = buffer.find(b"\n", line + 1)
        if line >= 0 and end >= 0:
            return end + 1 - position
    raise _Other


def _calls(opcodes: bytes) -> bool:
    """Whether what makes a tuple ends with a call, not with a number of the memo."""
    return len(opcodes) in (2, 4, 7)


class _Chunks(io.RawIOBase):
    """A file of pieces that are made when they are read."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        number = min(len(buffer), len(self._rest))
        buffer[:number] = self._rest[:number]
        self._rest = self._rest[number:]
        return number
