"""How an image is shown to a model and asked about, by the model's task, and how its answer gets into other pixels.

What a model writes is in the frame of what it was shown. `moved` brings it into the image's own pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgrl.boxes import COORDS
from sgrl.inference import zeroshot
from sgrl.models.vlm.coordinates import Convention, convention_of
from sgrl.prompts import scene_graph_prompt, with_context
from sgrl.task import Task
from sgrl.text import Codec, answer, get_codec

if TYPE_CHECKING:
    from PIL import Image

    from sgrl.models.vlm.chat import Chat

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked of an image.

    Attributes:
        shown: the image as the model sees it, or several.
        chat: the messages.
        seen: width and height of the coordinates that it writes.
        frame: of those that are wanted.
        convention: of a model that was never trained to write here.
        into: the layout that is wanted; None: that in which the model writes.
    """

    shown: Image.Image | Sequence[Image.Image]
    chat: Chat
    seen: Size
    frame: Size
    convention: Convention | None = None
    into: Codec | None = None


class Presentation:
    """The prompt, coordinates and image size of a task, for any image.

    A task of one size shows every image in that size, whatever its shape, as training did. Otherwise the shape stays,
    with no more pixels than the task's most and no fewer than its fewest.

    Args:
        task: how the model is to be asked.
        model: its folder or name, for coordinates "auto".
        convention: in place of the task's coordinates.

    Attributes:
        codec, vocabulary: of the task. convention: None for coordinates that models are trained in here.

    Raises:
        SgrlError: "auto" for a model of no known family.
    """

    def __init__(self, task: Task, model: str = "", convention: Convention | None = None):
        self.task, self.convention = task, convention
        if convention is None and task.coordinates not in COORDS:
            self.convention = convention_of(task.coordinates, model)
        self.codec, self.vocabulary = get_codec(task.codec), task.vocabulary
        self._pixels = task.pixels or (0, math.inf)

    def question(self, image: Image.Image, previous: tuple[str, Size] | None = None) -> Question:
        """What is asked of an image whose graph is wanted in its own pixels.

        previous: the graph of the frame before as text, and the frame in which it is written.
        """
        shown = self.shown(image)
        seen = self.frame(shown.size)
        told = None
        if previous is not None:
            told, before = previous
            if before != seen:
                told = resized_text(told, self.codec, before, seen)
        chat = self.chat([{"role": "user", "content": self.words(seen, shown.size)}], told)
        return Question(shown, chat, seen, image.size, self.convention)

    def shown(self, image: Image.Image) -> Image.Image:
        """The image as the model is to see it."""
        from PIL import Image

        size = self.task.size or self._fitting(*image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)

    def _fitting(self, width: int, height: int) -> Size:
        """The size of the same shape whose pixels are neither too few nor too many."""
        fewest, most = self._pixels
        pixels = min(max(width * height, fewest), most)
        if pixels == width * height:
            return width, height
        whole = math.floor if pixels == most else math.ceil
        across, down = (max(1, whole(side * math.sqrt(pixels / (width * height)))) for side in (width, height))
        return across, down

    def frame(self, shown: Size) -> Size:
        """Width and height of the coordinates that the model writes for an image of this size."""
        if self.convention:
            return self.convention.frame(*shown)
        return (1000, 1000) if self.task.coordinates == "norm1000" else shown

    def words(self, frame: Size, shown: Size) -> str:
        """The user's message for an image that is shown in the size `shown`, without a graph of the frame before."""
        if self.convention:
            return zeroshot.prompt(self.vocabulary, self.codec, *shown, self.convention, self.task.prompt)
        return scene_graph_prompt(self.vocabulary, self.codec, *frame, self.task.prompt, self.task.coordinates)

    def chat(self, words: Sequence[dict], previous: str | None = None) -> list[dict]:
        """Messages with the graph of the frame before, the task's system message before them and the answer's opening
        after them, where they have none."""
        chat = with_context(words, previous)
        if self.task.system and chat[0]["role"] != "system":
            chat.insert(0, {"role": "system", "content": self.task.system})
        if self.task.opening:
            chat.append({"role": "assistant", "content": self.task.opening})
        return chat


def resized_text(text: str, codec: Codec, seen: Size, frame: Size, into: Codec | None = None) -> str:
    """A graph's text in another frame of the same image; as it is where no object is in it.

    into: the layout of the result, by default the same.
    """
    graph, _ = codec.recover(text, *seen)
    return (into or codec).encode(graph.resized(*frame)) if graph.objects else text


def moved(text: str, codec: Codec, seen: Size, frame: Size, into: Codec | None = None) -> str:
    """An answer in another frame and layout, with answer tags; as it is if no object can be read, or both are the
    same."""
    found = text if seen == frame and into in (None, codec) else resized_text(text, codec, seen, frame, into)
    return text if found == text else answer.wrap(found)
