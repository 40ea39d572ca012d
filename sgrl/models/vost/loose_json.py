"""JSON as models write it: amid prose, in Python's quotes, with commas too many, or cut off."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 16
"""Of lists and objects in each other; what stands deeper is left out."""

_TOKEN = re.compile(
    r"\s*+(?:([{}\[\],:])|\"((?>(?:[^\"\\]|\\.)*))\"|'((?>(?:[^'\\]|\\.)*))'|([^\s{}\[\],:\"']++))", re.DOTALL
)
_BEGINNING = re.compile(r"[{\[]")
_WORDS = {"true": True, "false": False, "null": None, "none": None}
_NUMBER = re.compile(r"[+-]?+(?>[0-9]++(?>(?:\.[0-9]*+)?)|\.[0-9]++)(?>(?:[eE][+-]?+[0-9]++)?)")
_NOTHING = object()


def values(text: str) -> list[dict | list]:
    """The outermost lists and objects of a text, in order. Never raises; linear time.

    What the end of the text cuts off counts up to its last complete value, but an object inside a list counts whole or
    not at all. Words without quotes are left out. Of equal keys the last counts, as in JSON.
    """
    found: list[dict | list] = []
    place = 0
    while start := _BEGINNING.search(text, place):
        reader = _Reader()
        place = reader.read(text, start.start())
        found.append(reader.outermost)
    return found


class _Reader:
    """Reads one list or object, with those inside it on a stack."""

    def __init__(self) -> None:
        self._stack: list[dict | list] = []
        self._keys: list[Any] = []  # of each object on the stack: what stands before the colon
        self._colon = False
        self._deeper = 0
        self._word: Any = _NOTHING  # a scalar that may turn out to be a key
        self.outermost: Any = None

    def read(self, text: str, place: int) -> int:
        """Returns where it ended."""
        while match := _TOKEN.match(text, place):
            place = match.end()
            if match[1] is None:
                self._scalar(_scalar(match))
            elif self._punctuation(match[1]):
                return place
        self._cut_off()
        return len(text)  # an unclosed quote, or nothing more: all the rest belongs to what was cut off

    def _punctuation(self, sign: str) -> bool:
        """Returns whether the outermost one is closed."""
        if sign in "{[":
            if self._deeper or len(self._stack) >= MAX_DEPTH:
                self._deeper += 1
            else:
                self._open({} if sign == "{" else [])
        elif sign in "}]":
            if self._deeper:
                self._deeper -= 1
            else:
                self._close(dict if sign == "}" else list)
        elif sign == ":" and not self._deeper:
            self._colon = isinstance(self._stack[-1], dict) and isinstance(self._word, str)
            if self._colon:
                self._keys[-1] = self._word
        elif sign == "," and not self._deeper:
            self._colon, self._word = False, _NOTHING
        return not self._stack

    def _open(self, container: dict | list) -> None:
        if not self._stack:
            self.outermost = container
        elif isinstance(self._stack[-1], dict) and not self._colon:
            self._keys[-1] = None  # a value without key
        self._stack.append(container)
        self._keys.append(None)
        self._colon, self._word = False, _NOTHING

    def _close(self, kind: type) -> None:
        """The innermost of this kind ends, and what is open inside it; a bracket too many is nothing."""
        if not any(isinstance(each, kind) for each in self._stack):
            return
        ended = False
        while not ended:
            ended = isinstance(self._stack[-1], kind)
            self._pop()

    def _pop(self, keep: bool = True) -> None:
        container = self._stack.pop()
        self._keys.pop()
        self._colon, self._word = False, _NOTHING
        if keep and self._stack:
            self._put(container)

    def _put(self, value: Any) -> None:
        inside = self._stack[-1]
        if isinstance(inside, list):
            inside.append(value)
        elif self._keys[-1] is not None:
            inside[self._keys[-1]] = value
            self._keys[-1] = None

    def _scalar(self, value: Any) -> None:
        if self._deeper or value is _NOTHING:
            return
        if isinstance(self._stack[-1], list) or self._colon:
            self._put(value)
            self._colon = False
        else:
            self._word = value

    def _cut_off(self) -> None:
        while self._stack:
            in_list = len(self._stack) > 1 and isinstance(self._stack[-2], list)
            self._pop(keep=not (in_list and isinstance(self._stack[-1], dict)))


def _scalar(match: re.Match) -> Any:
    double, single, word = match[2], match[3], match[4]
    if double is not None:
        return _unescaped(double)
    if single is not None:
        return _unescaped(single.replace("\\'", "'").replace('"', '\\"'))
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if _NUMBER.fullmatch(word):
        whole = word.lstrip("+-").isdigit() and len(word) <= 18
        return int(word) if whole else float(word)
    return _NOTHING


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return json.loads(f'"{text}"', strict=False)
    except ValueError:
        return text
