"""How images that belong to no data set are shown to a model and asked about: as those that it was trained with.

What a model writes is in the frame of what it was shown. `moved` brings it into the image's own pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sgrl import data
from sgrl.prompts import scene_graph_prompt
from sgrl.text import Codec, answer, get_codec

if TYPE_CHECKING:
    from PIL import Image

UNTRAINED_PIXELS = 1024 * 768
"""The most that models which were never trained here are shown: none of the servers makes it smaller on its own."""


class Presentation:
    """The prompt, layout, coordinates and image size of a data set, for other images.

    A data set of one size shows every image in that size, whatever its shape, as training did. Otherwise the shape
    stays: where coordinates are pixels, the model gets no more of them than the largest image of the data set has and
    no fewer than the smallest, for its processor would scale them and it would write another frame.

    Args:
        dataset: what the model was trained with.
        trained: False for a model that was never trained on it: it is shown what it can see best.

    Attributes:
        metadata, codec, vocabulary: of the data set.
    """

    def __init__(self, dataset: str, trained: bool = True):
        self.metadata = data.read_metadata(dataset)
        self.codec, self.vocabulary = get_codec(self.metadata["codec"]), data.vocabulary_of(self.metadata)
        self._coords = self.metadata.get("coords", "pixel")
        self._size = tuple(self.metadata["size"]) if trained and self.metadata.get("size") else None
        self._pixels = (0, math.inf) if trained else (0, UNTRAINED_PIXELS)
        if trained and not self._size and self._coords == "pixel":
            self._pixels = data.pixel_range(dataset)

    def shown(self, image: Image.Image) -> Image.Image:
        """The image as the model is to see it."""
        from PIL import Image

        size = self._size or self._fitting(*image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)

    def _fitting(self, width: int, height: int) -> tuple[int, int]:
        """The size of the same shape whose pixels are neither too few nor too many."""
        fewest, most = self._pixels
        pixels = min(max(width * height, fewest), most)
        if pixels == width * height:
            return width, height
        whole = math.floor if pixels == most else math.ceil
        across, down = (max(1, whole(side * math.sqrt(pixels / (width * height)))) for side in (width, height))
        return across, down

    def frame(self, shown: Image.Image) -> tuple[int, int]:
        """Width and height of the coordinates that the model writes for what it is shown."""
        return (1000, 1000) if self._coords == "norm1000" else shown.size

    def prompt(self, frame: tuple[int, int]) -> str:
        """The user's message for an image of this frame, without a graph of the frame before."""
        return scene_graph_prompt(self.vocabulary, self.codec, *frame, self.metadata["prompt"], self._coords)


def resized_text(text: str, codec: Codec, seen: tuple[int, int], frame: tuple[int, int]) -> str:
    """A graph's text in another frame of the same image, both (width, height); as it is where no object is in it."""
    graph, _ = codec.recover(text, *seen)
    return codec.encode(graph.resized(*frame)) if graph.objects else text


def moved(text: str, codec: Codec, seen: tuple[int, int], frame: tuple[int, int]) -> str:
    """An answer in another frame, with answer tags; as it is if no object can be read, or the frame is the same."""
    found = text if seen == frame else resized_text(text, codec, seen, frame)
    return text if found == text else answer.wrap(found)
