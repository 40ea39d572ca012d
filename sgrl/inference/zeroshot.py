"""Baselines: models that were never trained on these graphs, each asked in the coordinates it was grounded in.

Qwen2-VL and Qwen2.5-VL write pixels of the image as they resize it, Qwen3-VL, Qwen3.5, InternVL and GLM thousandths,
Gemini and Gemma thousandths with y first, PaliGemma 1024ths with y first. The prompt asks for that frame and the
answer is brought back into the data set's, so that one reference and one metric serve all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sgrl.boxes import scale
from sgrl.errors import SgrlError, suggest
from sgrl.graph import Object, SceneGraph
from sgrl.prompts import scene_graph_prompt
from sgrl.text import Codec, answer
from sgrl.vocabulary import Vocabulary


@dataclass(frozen=True)
class Convention:
    """How a family of models writes boxes.

    bins: coordinates run from 0 to it on both axes; None for pixels. y_first: y1, x1, y2, x2. multiple: the sides of
    the image that the model sees are rounded to multiples of it.
    """

    bins: int | None = None
    y_first: bool = False
    multiple: int = 1

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the coordinates for an image of `width` x `height` pixels."""
        if self.bins:
            return self.bins, self.bins
        return tuple(max(round(side / self.multiple), 1) * self.multiple for side in (width, height))


CONVENTIONS = {
    "pixel": Convention(),
    "pixel28": Convention(multiple=28),
    "norm1000": Convention(1000),
    "norm1000-yx": Convention(1000, y_first=True),
    "norm1024-yx": Convention(1024, y_first=True),
}

# The first that is found in a model's name decides.
FAMILIES = (
    (r"qwen-?2(\.5|_5)?-?vl", "pixel28"),
    (r"qwen-?3|internvl|glm|ovis|minicpm|deepseek-vl|cogvlm", "norm1000"),
    (r"paligemma", "norm1024-yx"),
    (r"gemini|gemma", "norm1000-yx"),
    (r"gpt|claude|llama|llava|mistral|pixtral|kimi", "pixel"),
)


def convention_of(name: str, model: str) -> Convention:
    """The convention called `name`; "auto" chooses by the model's name.

    Raises:
        SgrlError: an unknown name, or "auto" for a model of no known family.
    """
    if name != "auto":
        if name not in CONVENTIONS:
            raise SgrlError(f"unknown coordinates {name!r}{suggest(name, ['auto', *CONVENTIONS])}")
        return CONVENTIONS[name]
    for pattern, found in FAMILIES:
        if re.search(pattern, model.lower()):
            return CONVENTIONS[found]
    raise SgrlError(f"how {model!r} writes boxes is not known; say it with --zero-shot {'|'.join(CONVENTIONS)}")


_ORDERS = (
    ("x1,y1,x2,y2", "y1,x1,y2,x2"),
    ("left, top, right and bottom edge", "top, left, bottom and right edge"),
)


def prompt(vocabulary: Vocabulary, codec: Codec, width: int, height: int, convention: Convention) -> str:
    """The full prompt for an image of `width` x `height` pixels, in a convention."""
    frame = convention.frame(width, height)
    text = scene_graph_prompt(vocabulary, codec, *frame)
    if convention.y_first:
        text = _BOX.sub(r"\1\4,\3\2,\5\8,\7\6", text)
        for usual, other in _ORDERS:
            text = text.replace(usual, other)
    if convention.bins:
        text = text.replace(
            f"They are pixels of the image, which is {frame[0]} wide and {frame[1]} high.",
            f"They run from 0 to {convention.bins} over the image: x from its left to its right edge, y from its top "
            "to its bottom edge.",
        )
    return text


_BOX = re.compile(r"(?<=[,\[])( ?)([0-9]+),( ?)([0-9]+),( ?)([0-9]+),( ?)([0-9]+)(?=\n|\])")


def in_frame_of(
    text: str, codec: Codec, image: tuple[int, int], frame: tuple[int, int], convention: Convention
) -> str:
    """An answer in the coordinates of the data set.

    Args:
        text: what the model wrote.
        image: width and height of the image that it was shown, in pixels.
        frame: width and height of the data set's coordinates.

    Returns: a completion with answer tags, or `text` itself where no object can be read.
    """
    written = convention.frame(*image)
    readable, size = text, written
    if convention.y_first:  # the readers name the columns x first, and put each pair of corners in order
        readable, size = re.sub(r"y1, ?x1, ?y2, ?x2", "x1,y1,x2,y2", text), written[::-1]
    graph, _ = codec.recover(readable, *size)
    if not graph.objects:
        return text
    order = (1, 0, 3, 2) if convention.y_first else (0, 1, 2, 3)
    boxes = scale([[o.box[i] for i in order] for o in graph.objects], written, frame)
    objects = [Object(o.label, tuple(box)) for o, box in zip(graph.objects, boxes.tolist(), strict=True)]
    return answer.wrap(codec.encode(SceneGraph(objects, graph.relations, *frame)))
