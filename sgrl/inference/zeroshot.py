"""Baselines: models that were never trained on these graphs, each asked in the coordinates it was grounded in.

Qwen2.5-VL writes pixels of the image as it resizes it; Qwen2-VL, Qwen3-VL, Qwen3.5, InternVL and GLM write
thousandths, Gemini and Gemma thousandths with y first, PaliGemma 1024ths with y first. The prompt asks for that frame
and the answer is brought back into the data set's, so that one reference and one metric serve all of them.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

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
    the image that the model sees are rounded to multiples of it. pixels: fewest and most that it sees, None for any.
    """

    bins: int | None = None
    y_first: bool = False
    multiple: int = 1
    pixels: tuple[int, int] | None = None

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the coordinates for an image of `width` x `height` pixels (Qwen's `smart_resize`)."""
        if self.bins:
            return self.bins, self.bins
        step = self.multiple
        found = tuple(round(side / step) * step for side in (width, height))
        fewest, most = self.pixels or (0, math.inf)
        if found[0] * found[1] > most:
            scaled = math.sqrt(width * height / most)
            return tuple(max(math.floor(side / scaled / step), 1) * step for side in (width, height))
        if found[0] * found[1] < fewest:
            scaled = math.sqrt(fewest / (width * height))
            return tuple(math.ceil(side * scaled / step) * step for side in (width, height))
        return found


CONVENTIONS = {
    "pixel": Convention(),
    "pixel28": Convention(multiple=28, pixels=(56 * 56, 16384 * 28 * 28)),
    "norm1000": Convention(1000),
    "norm1000-yx": Convention(1000, y_first=True),
    "norm1024-yx": Convention(1024, y_first=True),
}

# The first that is found decides: in the model_type of a model folder, or in a model's name.
FAMILIES = (
    (r"qwen-?2[.p-]?5-?(vl|omni)", "pixel28"),
    (r"qwen-?2-?vl|qwen-?vl-?chat|qvq", "norm1000"),  # arXiv 2409.12191, section 2
    (r"qwen-?3|internvl|glm|ovis|minicpm|deepseek-vl|cogvlm", "norm1000"),
    (r"paligemma", "norm1024-yx"),
    (r"gemini|gemma", "norm1000-yx"),
    (r"llava|kimi", "norm1000"),  # grounded in fractions, which are read as such
    (r"gpt|claude|llama|mistral|pixtral", "pixel"),
)


def convention_of(name: str, model: str) -> Convention:
    """The convention called `name`; "auto" chooses by what the model is.

    model: a folder whose config.json says it, or a name; of its parts the last that names a family counts.

    Raises:
        SgrlError: an unknown name, or "auto" for a model of no known family.
    """
    if name != "auto":
        if name not in CONVENTIONS:
            raise SgrlError(f"unknown coordinates {name!r}{suggest(name, ['auto', *CONVENTIONS])}")
        return CONVENTIONS[name]
    kind = _read(Path(model) / "config.json").get("model_type")
    for part in [kind] if isinstance(kind, str) else reversed(Path(model).parts):
        for pattern, found in FAMILIES:
            if re.search(pattern, part.lower().replace("_", "-")):
                return _as_processed(CONVENTIONS[found], Path(model))
    called = f"{model!r} (model_type {kind!r})" if kind else repr(model)
    raise SgrlError(f"how {called} writes boxes is not known; say it with --zero-shot {'|'.join(CONVENTIONS)}")


def _as_processed(convention: Convention, folder: Path) -> Convention:
    """With the limits that the processor of a model folder sets to the pixels."""
    if convention.pixels is None:
        return convention
    found = _read(folder / "preprocessor_config.json") or _read(folder / "processor_config.json")
    found = found.get("image_processor") or found
    size = found.get("size") or {}
    limits = (
        found.get("min_pixels") or size.get("shortest_edge"),
        found.get("max_pixels") or size.get("longest_edge"),
    )
    known = all(isinstance(limit, int) for limit in limits)
    return replace(convention, pixels=limits) if known and limits != convention.pixels else convention


def _read(path: Path) -> dict:
    """A JSON object of a model folder; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


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
    if all(0 <= value <= 1 for o in graph.objects for value in o.box):
        written = 1, 1  # fractions, which some models write whatever they are asked for
    order = (1, 0, 3, 2) if convention.y_first else (0, 1, 2, 3)
    boxes = scale([[o.box[i] for i in order] for o in graph.objects], written, frame)
    objects = [Object(o.label, tuple(box)) for o, box in zip(graph.objects, boxes.tolist(), strict=True)]
    return answer.wrap(codec.encode(SceneGraph(objects, graph.relations, *frame)))
