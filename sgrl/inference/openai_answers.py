"""Answers of a server with OpenAI's chat interface, checked at the border: what passes is safe for what follows."""

from __future__ import annotations

import codecs
import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from sgrl.inference.engine import Generation

MOST_TOKENS = 10**9  # of a prompt or an answer
ROUNDING = 0.01  # a log-probability may lie above 0 by so much

_HALVES = re.compile("[\ud800-\udfff]")


class BadAnswer(Exception):
    """What a server sent is no chat completion. The message is one line and holds none of the server's words."""


def generation(body: bytes, seconds: float) -> Generation:
    """The body of a response as a Generation; halves of characters, which UTF-8 can't write, become U+FFFD.

    Log-probabilities that are no finite numbers of at most 0, or do not belong to the text, are left out: the graph
    has no confidences then.

    Raises:
        BadAnswer: names the first thing that is not as expected.
    """
    try:
        answer = json.loads(body)
    except RecursionError:
        raise BadAnswer("an answer of JSON nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and numbers of thousands of digits too
        raise BadAnswer(f"an answer that is not JSON ({type(error).__name__})") from None
    choices = _part(_part(answer, dict, "the answer").get("choices"), list, "choices")
    if not choices:
        raise BadAnswer("an answer that is no chat completion: choices is empty")
    choice = _part(choices[0], dict, "choices[0]")
    message = _part(choice.get("message"), dict, "choices[0].message")
    content = message.get("content")  # null where the model only thought
    text = "" if content is None else _HALVES.sub("\ufffd", _part(content, str, "choices[0].message.content"))
    usage = answer.get("usage")
    usage = {} if usage is None else _part(usage, dict, "usage")
    tokens, prompt_tokens = _count(usage, "completion_tokens"), _count(usage, "prompt_tokens")
    reason = "length" if choice.get("finish_reason") == "length" else "stop"
    pieces, logprobs = _pieces(choice, text)
    return Generation(text, tokens, seconds, reason, prompt_tokens, pieces, logprobs)


def _part(value: object, kind: type, what: str):
    if not isinstance(value, kind):
        raise BadAnswer(
            f"an answer that is no chat completion: {what} is a {type(value).__name__}, expected a {kind.__name__}"
        )
    return value


def _count(usage: Mapping, name: str) -> int:
    """A number of tokens; 0 where the server does not say."""
    value = usage.get(name)
    if value is None:
        return 0
    if not _finite(value) or value != int(value) or not 0 <= value <= MOST_TOKENS:
        raise BadAnswer(f"an answer whose usage.{name} is no whole number from 0 to {MOST_TOKENS:,}")
    return int(value)


def _finite(value: Any) -> bool:
    """Whether a JSON value is a number that a float holds."""
    return type(value) in (int, float) and abs(value) <= 1e300 and math.isfinite(value)


def _pieces(choice: Mapping, text: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The tokens and their log-probabilities, if the server gives them, they are sound, and they are the text."""
    logprobs = choice.get("logprobs")
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(entries, list) or not all(map(_is_sound, entries)):
        return (), ()
    pieces = [_HALVES.sub("\ufffd", entry["token"]) for entry in entries]
    if "".join(pieces) != text:
        # Special tokens at the end are not in the text, and a character may be spread over tokens: bytes tell.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [decoder.decode(bytes(entry.get("bytes") or ())) for entry in entries]
        if not "".join(pieces).startswith(text):
            return (), ()
        ends = [min(end, len(text)) for end in itertools.accumulate(map(len, pieces))]
        pieces = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return tuple(pieces), tuple(min(0.0, float(entry["logprob"])) for entry in entries)


def _is_sound(entry: object) -> bool:
    """Whether this is a token with its log-probability, and its bytes, if any, are bytes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        return False
    logprob, data = entry.get("logprob"), entry.get("bytes")
    if logprob is None or not _finite(logprob) or logprob > ROUNDING:
        return False
    return data is None or (isinstance(data, list) and all(type(byte) is int and 0 <= byte <= 255 for byte in data))
