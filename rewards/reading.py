"""What trainers, files and programs hand over, as texts and graphs: completions, references, frames."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.graph import SceneGraph
from sgrl.text import Codec, FormatError, ParsedGraph, answer, get_codec
from sgrl.text.parsed import to_graph

PROTOCOLS = ("default", "published")
"""Of rewards and strict metrics."""


class CompletionError(SgrlError, TypeError):
    """Something that is neither a text nor a graph: a mistake in a program, not in what a model wrote."""


def is_graph(completion: Any) -> bool:
    """Whether this is a graph already: a SceneGraph, what a codec read, or a parsed JSON object with "objects"."""
    if isinstance(completion, Mapping):
        return "objects" in completion and "role" not in completion
    return isinstance(completion, SceneGraph | ParsedGraph)


def text_of(completion: Any, also: str = "") -> str:
    """The text of a completion however a trainer hands it over: str, bytes, chat message, list of messages or parts;
    None, NaN (a null in many tables) and an empty list are no text.

    also: names of what else the caller takes, for the message.

    Raises:
        CompletionError: anything else.

    >>> text_of([{"role": "assistant", "content": [{"type": "text", "text": "hello"}]}])
    'hello'
    """
    if isinstance(completion, str):
        return completion
    if completion is None or (isinstance(completion, float) and math.isnan(completion)):
        return ""
    if isinstance(completion, bytes | bytearray):
        return bytes(completion).decode("utf-8", "replace")
    if isinstance(completion, Mapping) and not completion.keys().isdisjoint(("role", "content", "text")):
        return text_of(completion.get("content", completion.get("text")))
    if isinstance(completion, list | tuple) and not hasattr(completion, "_fields"):  # what has is a record
        if completion and all(isinstance(part, dict) and part.get("type") == "text" for part in completion):
            return "".join(text_of(part) for part in completion)
        return text_of(completion[0]) if completion else ""
    found = type(completion).__name__
    if is_graph(completion):
        raise CompletionError(f"expected a text or a chat message, found a graph ({found}); write it with a codec")
    raise CompletionError(
        f"expected a text, found {found} (taken are also chat messages and lists of them, SceneGraph, ParsedGraph, "
        f"JSON objects with objects and relationships, {also}{', ' if also else ''}and None)"
    )


def check_completion(completion: Any, codec: Codec) -> None:
    """Raises CompletionError for what is neither a text nor a graph that can be compared with graphs of the layout."""
    if isinstance(completion, Mapping) and is_graph(completion):
        if codec.grouped:
            raise CompletionError(
                f"a JSON object has no groups of predicates, which {codec.name} has; expected a text"
            )
    elif not is_graph(completion):
        text_of(completion)


def completion_of(prediction: Any, codec: Codec, width: int, height: int) -> str | ParsedGraph | SceneGraph:
    """What a metric reads: a graph as it is, JSON objects as their layout is read, everything else as its text.

    Raises:
        CompletionError: neither a text nor a graph. SgrlError: a graph of an image of another size.
    """
    if not is_graph(prediction):
        return text_of(prediction)
    check_completion(prediction, codec)
    if isinstance(prediction, Mapping):
        try:
            text = _dumped(prediction)
        except FormatError as error:
            return f"no graph: {error}"
        return text if codec.is_json else get_codec("json").recover_parsed(text, width, height)[0]
    graph: ParsedGraph | SceneGraph = prediction
    if isinstance(graph, SceneGraph):
        check_size("predicted", graph, width, height)
    return graph


def graph_text(graph: Any, codec: Codec, width: int, height: int) -> str:
    """A graph (see `is_graph`) as the codec writes it, without answer tags.

    Raises:
        FormatError: a relation of a ParsedGraph names no object, or a JSON object that is not exactly a graph.
        SgrlError: a graph of an image of another size, or one that the layout cannot hold.
    """
    check_completion(graph, codec)
    if isinstance(graph, Mapping):
        text = _dumped(graph)
        if codec.is_json:
            return text
        graph = get_codec("json").parse(text, width, height, tags=False)
    if isinstance(graph, ParsedGraph):
        if any(min(subject, target) < 0 for subject, _, target in graph.relations):
            raise FormatError("a relation names an object that does not exist")
        graph = to_graph(graph, width, height, codec.grouped)
    check_size("predicted", graph, width, height)
    try:
        return codec.encode(graph)
    except FormatError as error:
        raise SgrlError(str(error)) from None


def _dumped(document: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(document))
    except TypeError as error:
        raise CompletionError(f"a JSON object with objects and relationships was expected: {error}") from None
    except (ValueError, RecursionError) as error:  # numbers of too many digits; nested too deeply
        raise FormatError(f"not JSON: {error}") from None


def read_reference(solution: Any, codec: Codec, width: int, height: int) -> ParsedGraph:
    """The graph of a reference; arguments and errors as in `GraphScorer.reference`."""
    try:
        if isinstance(solution, SceneGraph):
            check_size("reference", solution, width, height)
            solution = codec.encode(solution)
        elif is_graph(solution):
            solution = graph_text(solution, codec, width, height)
        return codec.parse(text_of(solution), width, height, tags=None)
    except FormatError as error:
        raise FormatError(f"malformed reference: {error.reason}", error.line) from None


def check_reference(reference: Any) -> None:
    """Raises CompletionError for scores in the place of a reference, and for what else is neither text nor graph."""
    if not is_graph(reference):
        try:
            text_of(reference)
        except CompletionError:
            found = type(reference).__name__
            raise CompletionError(
                f"a reference must be a text or a graph, found {found}; predictions come first"
            ) from None


def reference_text(solution: Any) -> str:
    """The text of a reference in a column of a data set, which may hold chat messages and JSON objects.

    Raises:
        CompletionError, FormatError: it is neither, or a JSON object that cannot be written.
    """
    return _dumped(solution) if isinstance(solution, Mapping) and is_graph(solution) else text_of(solution)


def as_answer(solution: Any, family: str) -> str:
    """The completion that a model should write: a graph's text in answer tags, for R1-SGG behind a thought."""
    text = text_of(solution)
    text = text if answer.OPEN in text else answer.wrap(text)
    return f"<think>\n</think>\n{text}" if family == "r1-sgg" else text


def check_protocol(protocol: str) -> None:
    """Raises SgrlError for an unknown protocol of rewards and strict metrics."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol {protocol!r}{suggest(protocol, PROTOCOLS)}")


def check_size(what: str, graph: SceneGraph, width: int, height: int) -> None:
    """Raises SgrlError unless the graph is of an image of this size."""
    if (graph.width, graph.height) != (width, height):
        raise SgrlError(
            f"the {what} graph is of an image of {graph.width} x {graph.height}, but its counterpart is read for "
            f"{width} x {height}; use graph.resized(...)"
        )


def check_frame(width: Any, height: Any) -> None:
    """Raises SgrlError unless width and height are those of a frame of boxes."""
    for value in (width, height):
        number = isinstance(value, Real)
        if not (number and 0 < value < math.inf):
            raise SgrlError(f"width and height must be positive, found {width!r} x {height!r}")


def is_absent(solution: Any, size: Sequence[Any]) -> bool:
    """Whether a row has no reference: a null in its solution, width or height."""
    return solution is None or None in size


def pixels_of(name: str, value: Any) -> int | None:
    """A side of a frame; None for a null, also as tables write it."""
    if value is None or value != value:
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise SgrlError(f"the column {name!r} holds {value!r}; expected a number of pixels, or null") from None
