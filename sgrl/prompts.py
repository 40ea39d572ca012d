"""Every prompt, once: training, inference and evaluation all render from here.

What a prompt contains follows SceneGraphVLM (the task, the layout, the allowed labels, the coordinate frame, an
example); the words are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sgrl.boxes import COORDS
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import Codec, answer, get_codec
from sgrl.vocabulary import Vocabulary

SHORT = "Write the scene graph."
"""For models that are trained on the task anyway: everything else is learnt from the answers."""

_FULL = """\
Write the scene graph of the image: the objects that can be seen, where they are, and how they are related.

Answer with the graph alone, in exactly this layout (an example of another image):
{example}

{rules}
- Coordinates are whole numbers. {frame} Every box has 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}.
- Name only objects that are visible and only relations that hold. Repeat nothing; relate no object to itself.
- Use only the labels listed here, spelt as here.

Objects: {objects}
{predicates}"""

STYLES = {"full": _FULL, "short": SHORT}
"""The prompts of ours by name, with slots: names in braces."""

SLOTS = ("example", "rules", "frame", "width", "height", "objects", "predicates")
"""What may stand in the slots of a prompt."""

_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z_0-9]*)\}")  # neither a header of TOON nor JSON

_PREVIOUS = "\n\nThe scene graph of the frame before it in the video:\n"

# An example reads best when it makes sense; the first whose words are all in the vocabulary is taken.
_EXAMPLES = (
    ("person", "holding", "umbrella"),
    ("adult", "holding", "cup"),
    ("person", "holding", "cup/glass/bottle"),
    ("man", "holding", "umbrella"),
    ("circle", "inside", "square"),
)
_EXAMPLE_BOXES = ((0.31, 0.38, 0.48, 0.63), (0.20, 0.31, 0.56, 0.94))  # fractions of width and height


def scene_graph_prompt(
    vocabulary: Vocabulary, codec: str | Codec, width: int, height: int, style: str = "full", coords: str = "pixel"
) -> str:
    """The user's message that asks for a scene graph; the image goes before it.

    Args:
        vocabulary: the labels that are allowed.
        codec: name of the text layout ("toon", "json", ...), or the codec itself.
        width, height: the frame of the coordinates: the image as the model sees it in pixels, 1000 x 1000 for
            `coords="norm1000"`.
        style: "full" explains the task, "short" is one line; or a text of one's own, in which each of SLOTS in braces
            stands for what is known here: {objects} for the classes.
        coords: "pixel" or "norm1000" (thousandths of the image's width and height).

    Raises:
        SgrlError: an unknown codec, style, slot or coordinate frame.
    """
    check_style(style)
    if coords not in COORDS:
        raise UsageError(f"unknown coordinates {coords!r}{suggest(coords, COORDS)}")
    codec = get_codec(codec)
    if coords == "pixel":
        frame = f"They are pixels of the image, which is {width} wide and {height} high."
    else:
        frame = "They are thousandths of the image: x from 0 (left) to 1000, y from 0 (top) to 1000."
    slots: dict[str, Callable[[], str]] = {
        "example": lambda: answer.wrap(codec.encode(_example(vocabulary, codec, width, height))),
        "rules": lambda: codec.rules,
        "frame": lambda: frame,
        "width": lambda: str(width),
        "height": lambda: str(height),
        "objects": lambda: _listed(vocabulary, vocabulary.objects),
        "predicates": lambda: _predicates(vocabulary, codec),
    }
    return _SLOT.sub(lambda slot: slots[slot[1]](), STYLES.get(style, style))


def check_style(style: object) -> None:
    """Raise SgrlError unless it is one of STYLES, or a text whose slots are all among SLOTS."""
    if not isinstance(style, str) or (style not in STYLES and len(style.split()) < 2):
        raise UsageError(f"unknown prompt style {style!r}{suggest(style, STYLES)}, or write a text of several words")
    for name in _SLOT.findall(style):
        if name not in SLOTS:
            raise SgrlError(f"the prompt has a slot {{{name}}} that nothing is known for{suggest(name, SLOTS)}")


def with_previous(prompt: str, graph: str) -> str:
    """The prompt for a frame of a video, given the graph of the frame before it as a text without answer tags.

    It comes last, so that what all prompts share comes first (engines keep the shared beginning of prompts). The first
    frame of a video gets the prompt as it is.
    """
    return f"{prompt}{_PREVIOUS}{graph}"


def with_context(prompt: Sequence[dict], previous: str | None) -> list[dict]:
    """The chat of a row, whose last message (the user's) goes on with the graph of the frame before.

    Args:
        prompt: messages as rows have them, without such a graph.
        previous: a graph's text without answer tags; None for a frame without one (the first of a video).

    Returns: new messages; those given stay as they are.
    """
    if previous is None:
        return list(prompt)
    return [*prompt[:-1], {**prompt[-1], "content": with_previous(prompt[-1]["content"], previous)}]


def split_previous(prompt: str) -> tuple[str, str | None]:
    """What `with_previous` was given; None for a prompt without a graph. For old data sets, see `sgrl.data.load`.

    >>> split_previous(with_previous("Write.", "obj[0]:"))
    ('Write.', 'obj[0]:')
    """
    prompt, separator, graph = prompt.partition(_PREVIOUS)
    return prompt, graph if separator else None


def _listed(vocabulary: Vocabulary, labels) -> str:
    return ", ".join(dict.fromkeys(map(vocabulary.to_text, labels)))


def _predicates(vocabulary: Vocabulary, codec: Codec) -> str:
    if codec.grouped and vocabulary.groups:
        return "\n".join(
            f"{name.capitalize()}: {_listed(vocabulary, group)}" for name, group in vocabulary.groups.items()
        )
    return f"Predicates: {_listed(vocabulary, vocabulary.predicates)}"


def _example(vocabulary: Vocabulary, codec: Codec, width: int, height: int) -> SceneGraph:
    """Two objects and the least that shows the layout, in plausible places."""
    first, last = vocabulary.objects[0], vocabulary.objects[-1]
    subject, predicate, target = first, vocabulary.predicates[0], last
    for words in _EXAMPLES:
        if {words[0], words[2]} <= set(vocabulary.objects) and words[1] in vocabulary.predicates:
            subject, predicate, target = words
            break
    boxes = [(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in _EXAMPLE_BOXES]
    if subject in ("person", "adult", "man"):
        boxes.reverse()  # what a person holds is the smaller of the two
    relations = [Relation(0, predicate, 1)]
    if codec.grouped:
        groups = vocabulary.groups or {}
        pairs = {name: predicate if predicate in labels else labels[0] for name, labels in groups.items()}
        relations = [Relation(0, label, 1, group=name) for name, label in pairs.items()]
    return SceneGraph((Object(subject, boxes[0]), Object(target, boxes[1])), tuple(relations), width, height)
