"""Foreign text before it reaches a terminal or a log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.terminal import printable

HARMFUL = {
    "\x1b[2J": r"\x1b[2J",  # clears the screen
    "\x1b]0;title\x07": r"\x1b]0;title\x07",  # renames the window
    "\x9b31m": r"\x9b31m",  # the same as ESC [ in one character
    "a\nb\r\tc": r"a\nb\r\tc",
    "a\u2028b\u2029c\x85d\x0be": r"a\u2028b\u2029c\x85d\x0be",  # what str.splitlines takes for a line's end
    "\u202egnp.exe": r"\u202egnp.exe",  # shown from right to left
    "a\u200bb\ufeff": r"a\u200bb\ufeff",  # invisible
    "\ud83d": r"\ud83d",  # half of a character: no terminal can be sent it
    "\U000e0041": r"\U000e0041",
}


@pytest.mark.parametrize(("text", "shown"), HARMFUL.items(), ids=range(len(HARMFUL)))
def test_what_a_terminal_obeys_becomes_visible(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["traffic light", "猫", "café", r"C:\new\table", "می\u200cخواهم", "👩\u200d🚀", ""])
def test_all_else_stays(text):
    assert printable(text) == text


@given(st.text(st.characters(exclude_categories=())))
def test_one_line_without_control_characters_and_idempotent(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
    shown.encode()  # no half of a surrogate pair
    assert printable(shown) == shown


def test_a_bound_on_the_length():
    assert printable("x" * 5, 5) == "x" * 5
    assert printable("x" * 6, 5) == "xxxx…"
    assert printable("\n" * 3, 5) == r"\n\n…"
    assert printable(7) == "7"
