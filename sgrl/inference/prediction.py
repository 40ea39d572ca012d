"""What a model says of an image, and what everything that writes scene graphs can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, overload

from sgrl.graph import SceneGraph
from sgrl.inference.given import as_image
from sgrl.task import Task

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        graph: in pixels of the image that was given, upright; relations have their confidence as `score`, where the
            engine knows it. Without objects if the answer held none, or there is none.
        text: the answer as the model wrote it.
        answer: its graph as text in pixels of the image, with answer tags; `text` if nothing had to be changed.
        confidence: of each relation of `answer` in its order, None where it is not known.
        finish_reason: "stop", "length" (cut at the limit of tokens), "error", "refused", or "unreadable".
        error: what went wrong, for the last three; None otherwise.
        tracks: the number of each object through a stream; None for a single image.
        tokens, prompt_tokens, seconds: see `Generation`.
        repaired: how many of each fault were put right in an answer that a grammar led.
    """

    graph: SceneGraph
    text: str = ""
    answer: str = ""
    confidence: Sequence[float | None] = ()
    finish_reason: str = "stop"
    error: str | None = None
    tracks: tuple[int, ...] | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0
    repaired: dict[str, int] | None = None

    @classmethod
    def of_unreadable(cls, error: Exception) -> Prediction:
        """Of an image that does not open."""
        return cls(SceneGraph((), (), 1, 1), finish_reason="unreadable", error=str(error))

    def to_dict(self) -> dict:
        """`SceneGraph.to_dict`, with the tracks of a stream."""
        return self.graph.to_dict(self.tracks)

    def to_json(self) -> str:
        """`to_dict` as one line."""
        return self.graph.to_json(self.tracks)

    def draw(self, image: Any = None) -> Image.Image:
        """`SceneGraph.draw`; image: whatever the model takes."""
        return self.graph.draw(None if image is None else as_image(image), self.tracks)

    def _repr_html_(self) -> str:
        return self.graph._repr_html_()


class SceneGraphPredictor(Protocol):
    """What `SceneGraphModel.from_pretrained` returns, whatever it loads: a language model, a detector, a model of
    videos."""

    task: Task
    """What it was made for; `task.kind` says what it is."""

    @overload
    def __call__(self, images: list | tuple, *, bgr: bool = False) -> list[Prediction]: ...
    @overload
    def __call__(self, images: Any, *, bgr: bool = False) -> Prediction: ...
    def __call__(self, images: Any, *, bgr: bool = False) -> Prediction | list[Prediction]:
        """The graph of an image, or of each of a list or tuple of images; see `sgrl.inference.given` for what is one.

        Raises:
            SgrlError: the image does not open, or no answer came. Of a list it does not end the others: their
                `Prediction.error` says so.
        """

    def stream(self, frames: Any, *, bgr: bool = False) -> Iterator[Prediction]:
        """The graphs of frames in their order, as they come, with the number of each object in `tracks`.

        frames: an iterable of images that need not end, a video file, a folder of frames, the number of a camera.
        """

    def close(self) -> None:
        """Free the model's memory. It can't be used afterwards."""

    def __enter__(self) -> SceneGraphPredictor: ...
    def __exit__(self, *exception: object) -> None: ...
