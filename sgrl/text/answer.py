"""The answer tags around a graph text: write them, demand them, or find the graph without them."""

from __future__ import annotations

import re

from sgrl.text.parsed import FormatError

OPEN, CLOSE = "<answer>", "</answer>"
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
    leading `<think>...</think>` are taken away, exactly `<answer>`, newline, body, newline, `</answer>` must be left;
    with `newline=False` the newlines may be missing.

    Raises:
        FormatError: anything else.
    """
    if not (text.startswith(f"{OPEN}\n") and text.endswith(f"\n{CLOSE}")):
        text = _without_end_markers(text.strip())
        if text.startswith("<think>"):
            end = text.find("</think>")
            if end < 0:
                raise FormatError("<think> is not closed; expected <think>...</think> before <answer>")
            text = text[end + len("</think>") :].strip()
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


def _without_end_markers(text: str) -> str:
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
_THINK_END = "</think>"


def lenient(text: str, mark: str) -> str:
    """The part of any text in which the graph most likely stands.

    `mark` is what a graph must contain ("obj[" for TOON). Reasoning up to the last `</think>` is dropped if a graph
    follows it; of the `<answer>` blocks, closed or not, the last one with a graph counts; without any, the whole text.
    Never raises; linear in the length of the text.
    """
    mark = mark.lower()
    head, found, tail = text.rpartition(_THINK_END)
    if found and mark in tail.lower():
        text = tail
    for block in reversed(_OPEN_ANY_CASE.split(text)[1:]):
        block = _CLOSE_ANY_CASE.split(block, maxsplit=1)[0]
        if mark in block.lower():
            return block
    for block in reversed(_CLOSE_ANY_CASE.split(text)):
        if mark in block.lower():
            return block
    return text


def after_thinking(text: str) -> str:
    """The text behind a leading, closed `<think>` block."""
    if text.lstrip().startswith("<think>"):
        return text.partition(_THINK_END)[2] or text
    return text


def first_closed(text: str) -> tuple[str, bool]:
    """The first closed answer and True, or the whole text and False."""
    start = text.find(OPEN)
    end = text.find(CLOSE, start) if start >= 0 else -1
    return (text[start + len(OPEN) : end], True) if end >= 0 else (text, False)
