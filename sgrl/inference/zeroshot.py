"""Baselines: models that were never trained on these graphs, each asked in the coordinates it was grounded in.

The prompt asks for the frame of the model's family (`sgrl.models.vlm.coordinates`) and the answer is brought back into
the data set's, so that one reference and one metric serve all of them.
"""

from __future__ import annotations

import re

from sgrl.boxes import scale
from sgrl.graph import Object, SceneGraph
from sgrl.models.vlm.coordinates import Convention
from sgrl.moved import moved_names
from sgrl.prompts import scene_graph_prompt
from sgrl.text import Codec, answer
from sgrl.vocabulary import Vocabulary

__getattr__ = moved_names(__name__)

_ORDERS = (
    ("x1,y1,x2,y2", "y1,x1,y2,x2"),
    ("left, top, right and bottom edge", "top, left, bottom and right edge"),
)


def prompt(
    vocabulary: Vocabulary, codec: Codec, width: int, height: int, convention: Convention, style: str = "full"
) -> str:
    """The prompt for an image of `width` x `height` pixels, in a convention. style: see `scene_graph_prompt`."""
    frame = convention.frame(width, height)
    text = scene_graph_prompt(vocabulary, codec, *frame, style)
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
    text: str,
    codec: Codec,
    image: tuple[int, int],
    frame: tuple[int, int],
    convention: Convention,
    into: Codec | None = None,
) -> str:
    """An answer in other coordinates.

    Args:
        text: what the model wrote.
        image: width and height of the image that it was shown, in pixels.
        frame: of those that are wanted. into: the layout that is, by default the same.

    Returns: a completion with answer tags, or `text` itself where no object can be read.
    """
    written = convention.frame(*image)
    readable, size = text, written
    if convention.y_first:  # the readers name the columns x first, and put each pair of corners in order
        readable, size = re.sub(r"y1, ?x1, ?y2, ?x2", "x1,y1,x2,y2", text), written[::-1]
    graph, _ = codec.recover(readable, *size)
    if not graph.objects:
        return text
    if all(0 <= value <= 1 for o in graph.objects for value in o.box):
        written = 1, 1  # fractions, which some models write whatever they are asked for
    order = (1, 0, 3, 2) if convention.y_first else (0, 1, 2, 3)
    boxes = scale([[o.box[i] for i in order] for o in graph.objects], written, frame)
    objects = [Object(o.label, tuple(box)) for o, box in zip(graph.objects, boxes.tolist(), strict=True)]
    return answer.wrap((into or codec).encode(SceneGraph(objects, graph.relations, *frame)))
