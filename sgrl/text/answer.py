"""The answer tags around a graph text: write them, demand them, or find the graph without them."""

from __future__ import annotations

import re

from sgrl.text.parsed import FormatError

OPEN, CLOSE = "<answer>", "</answer>"
THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi-VL
)
"""The tags around thoughts. Chat templates of thinking models write the first one into the prompt, so that completions
begin inside the thought and hold its closing tag alone."""
SPECIAL_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|end|>")
"""End markers that some engines leave at the end of a completion."""


def wrap(body: str) -> str:
    """The completion whose answer is `body`.

    >>> wrap("rel[0]{subj,pred,obj}:")
    '<answer>\\nrel[0]{subj,pred,obj}:\\n</answer>'
    """
    return f"{OPEN}\n{body}\n{CLOSE}"


def strict(text: str, newline: bool = True) -> str:
    """The text between the tags of a well-formed completion.

    The rules of SceneGraphVLM's format reward: after white space, a run of end markers (which may be quoted) and one
    leading thought are taken away, exactly `<answer>`, newline, body, newline, `</answer>` must be left; with
    `newline=False` the newlines may be missing. A thought whose opening tag stands in the prompt is one too.

    Raises:
        FormatError: anything else.
    """
    if text.startswith(f"{OPEN}\n") and text.endswith(f"\n{CLOSE}"):
        body = text[len(OPEN) : -len(CLOSE)]
        if not ("<" in body or "[/" in body or "◁" in body):  # no tag
            return body[1:-1] if newline else body
    text = without_end_markers(text.strip())
    end = thought_end(text)
    if end < 0:
        opening = next(opening for opening, _ in THOUGHTS if text.startswith(opening))
        raise FormatError(f"{opening} is not closed; expected the end of the thought before {OPEN}")
    text = text[end:].strip()
    if not text.startswith(OPEN):
        raise FormatError(f"the completion must begin with {OPEN}, found {text[:40]!r}")
    if newline and not text.startswith(f"{OPEN}\n"):
        raise FormatError(f"{OPEN} must be followed by a newline")
    if not text.endswith(CLOSE):
        raise FormatError(f"the completion must end with {CLOSE}, found {text[-40:]!r}")
    if newline and not text.endswith(f"\n{CLOSE}"):
        raise FormatError(f"{CLOSE} must stand at the beginning of a line")
    body = text[len(OPEN) : -len(CLOSE)]
    if newline:
        body = body[1:-1]
    if "<" in body and (OPEN in body or CLOSE in body):
        raise FormatError("more than one answer; expected one <answer>...</answer>")
    return body


def thought_end(text: str) -> int:
    """Where the thought ends with which a text begins; 0 if it begins with none, -1 if that is not closed.

    >>> thought_end("<think>hm</think><answer>"), thought_end("hm</think><answer>"), thought_end("<answer>")
    (17, 10, 0)
    """
    for opening, closing in THOUGHTS:
        if text.startswith(opening):
            end = text.find(closing)
            return end if end < 0 else end + len(closing)
    ends = [(end, closing) for _, closing in THOUGHTS if (end := text.find(closing)) >= 0]
    if not ends:
        return 0
    end, closing = min(ends)
    return 0 if any(text.find(opening, 0, end) >= 0 for opening, _ in THOUGHTS) else end + len(closing)


def body(text: str, tags: bool | None, newline: bool = True) -> str:
    """The graph text for a strict reader: of a completion (True), of a bare graph text (False), of either (None).

    Raises:
        FormatError: not a str, or tags that break the rules of `strict`.
    """
    if not isinstance(text, str):
        raise FormatError(f"expected a text, found {type(text).__name__}")
    if tags is None:
        tags = OPEN in text
    return strict(text, newline) if tags else text.strip()


def without_end_markers(text: str) -> str:
    """A text without the run of end markers at its end, which may be quoted."""
    end = len(text)
    while True:  # indices, not slices: a megabyte of markers must cost a megabyte, not its square
        stop = _skip_back(text, end, "\"' \t\r\n")
        for token in SPECIAL_TOKENS:
            if text.endswith(token, 0, stop):
                end = _skip_back(text, stop - len(token), " \t\r\n")
                if end and text[end - 1] in "\"'":
                    end = _skip_back(text, end - 1, " \t\r\n")
                break
        else:
            return text[:end]


def _skip_back(text: str, end: int, characters: str) -> int:
    while end and text[end - 1] in characters:
        end -= 1
    return end


_OPEN_ANY_CASE = re.compile(re.escape(OPEN), re.IGNORECASE)
_CLOSE_ANY_CASE = re.compile(re.escape(CLOSE), re.IGNORECASE)
_THOUGHT_TAGS = re.compile("|".join(re.escape(tag) for pair in THOUGHTS for tag in pair))
_OPENINGS = {opening for opening, _ in THOUGHTS}
_TAGS = tuple(tag for pair in THOUGHTS for tag in pair)


def lenient(text: str, mark: str) -> str:
    """The part of any text in which the graph most likely stands.

    `mark` is what a graph must contain ("obj[" for TOON). Thoughts are no answer (see `without_thoughts`); of the
    `<answer>` blocks, closed or not, the last one with a graph counts; then what stands around them, if there is one;
    else the last block that is not empty; without any, the whole text. Never raises; linear in the length of the text.
    """
    mark = mark.lower()
    text = without_thoughts(text)
    blocks = [_CLOSE_ANY_CASE.split(block, maxsplit=1)[0] for block in _OPEN_ANY_CASE.split(text)[1:]]
    for block in reversed(blocks):
        if mark in block.lower():
            return block
    for block in reversed(_CLOSE_ANY_CASE.split(text)):
        if mark in block.lower():
            return block
    return next((block for block in reversed(blocks) if block.strip()), text)


def without_thoughts(text: str) -> str:
    """Any text without its thoughts: from an opening tag, or from the beginning if that tag is in the prompt, to the
    closing one. A thought that is not closed was cut off, unless an answer begins in it.

    >>> without_thoughts("<think>a</think>b"), without_thoughts("a</think>b"), without_thoughts("b<think>a")
    ('b', 'b', 'b')
    """
    begun = text.lstrip()
    end = thought_end(begun)
    rest = begun[end:] if end > 0 else text
    if not any([tag in rest for tag in _TAGS]):  # nearly always; a pattern of many tags is slow to search for
        return rest
    kept: list[str] = []
    place, opened = 0, None
    for match in _THOUGHT_TAGS.finditer(text):
        if match[0] in _OPENINGS:
            opened = match.start() if opened is None else opened
            continue
        if opened is None:
            kept.clear()
        else:
            kept.append(text[place:opened])
        place, opened = match.end(), None
    if opened is not None and not _OPEN_ANY_CASE.search(text, opened):
        return "".join(kept) + text[place:opened]
    return "".join(kept) + text[place:]


def published(text: str, mark: str) -> str:
    """What SceneGraphVLM's evaluator reads where `lenient` leaves thoughts out: it drops what stands before the last
    `</think>` if a graph follows it, and otherwise reads the thought."""
    _, found, tail = text.rpartition("</think>")
    if found and mark in tail.lower():
        return tail
    return text.replace("<think>", "").replace("</think>", "")


def first_closed(text: str) -> tuple[str, bool]:
    """The first closed answer and True, or the whole text and False."""
    start = text.find(OPEN)
    end = text.find(CLOSE, start) if start >= 0 else -1
    return (text[start + len(OPEN) : end], True) if end >= 0 else (text, False)
