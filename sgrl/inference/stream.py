"""A model looking at one camera that never ends: frame by frame, with the graph of the one before."""

from __future__ import annotations

import collections
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from sgrl.context import handed_on, warn_of_context
from sgrl.errors import SgrlError
from sgrl.inference.given import WrongImage, as_image
from sgrl.inference.prediction import Prediction
from sgrl.inference.presentation import Presentation, Question
from sgrl.linking import Tracker
from sgrl.task import Task
from sgrl.text import Codec


class Asked(Protocol):
    """What a stream needs of a `SceneGraphModel`."""

    task: Task
    codec: Codec
    presentation: Presentation
    constrain: bool

    def answer(self, questions: Sequence[Question]) -> list[Prediction]: ...


class SceneGraphStream:
    """Push a frame, get its graph, which the next frame then starts from. `SceneGraphModel.stream` is a loop over it.

        stream = SceneGraphStream(model)
        camera.subscribe(lambda image: publish(stream.push(image).graph))

    Args:
        model: see `SceneGraphModel`.
        context: "generated" hands on the stream's own last graph, "none" looks at each frame alone. None: as the
            model's task says.
        tracker: gives objects their numbers; of its own by default.

    Attributes:
        latencies: seconds from a frame to its graph, of the last 10,000.
    """

    def __init__(self, model: Asked, context: str | None = None, tracker: Tracker | None = None):
        if context not in (None, "none", "generated"):
            raise SgrlError(f"a stream's context is 'none' or 'generated', found {context!r}")
        if context is None:
            context = "none" if model.task.context == "none" else "generated"
        else:
            warn_of_context(context, model.task.context_source)
        if context == "generated" and model.presentation.convention:
            raise SgrlError(
                f"a stream's context is 'generated', which needs coordinates of pixels or thousandths, x first; those "
                f"of this task are {model.task.coordinates!r}: set context to 'none'"
            )
        self.model, self.context = model, context
        self.latencies: collections.deque[float] = collections.deque(maxlen=10_000)
        self._tracker = tracker or Tracker()
        self._previous: tuple[str, tuple[int, int]] | None = None
        self._size: tuple[int, int] | None = None

    def push(self, image: Any, bgr: bool = False) -> Prediction:
        """The graph of the next frame, with the numbers of its objects in `tracks`; its `seconds` are those from the
        frame to the graph.

        A frame whose answer holds no graph, or that fails, leaves the context as it was. One that does not open says
        so in `error`.

        Args:
            image, bgr: see `sgrl.inference.given`.

        Raises:
            WrongImage: it is no image. SgrlError: the engine cannot go on.
        """
        start = time.perf_counter()
        try:
            picture = as_image(image, bgr)
        except WrongImage:
            raise
        except SgrlError as error:
            return replace(Prediction.of_unreadable(error), tracks=())
        question = self.model.presentation.question(picture, self._previous)
        (found,) = self.model.answer([question])
        if self.context == "generated":
            text = handed_on(found.text, self.model.codec, question.seen, self.model.constrain)
            self._previous = (text, question.seen) if text else self._previous
        if picture.size != self._size:  # another camera, or turned: places of before mean nothing
            self._tracker.forget()
        self._size = picture.size
        latency = time.perf_counter() - start
        self.latencies.append(latency)
        return replace(found, tracks=self._tracker.update(found.graph), seconds=latency)

    def reset(self) -> None:
        """Forget the last graph and all objects: the next frame begins another scene."""
        self._previous = self._size = None
        self._tracker.forget()

    def latency(self) -> dict[str, float]:
        """Mean, median and 95th percentile of the latencies in seconds, and frames per second; zeros before any."""
        ordered = sorted(self.latencies)
        if not ordered:
            return dict.fromkeys(("mean", "median", "p95", "frames_per_second"), 0.0)
        mean = sum(ordered) / len(ordered)
        at = {"median": len(ordered) // 2, "p95": min(int(len(ordered) * 0.95), len(ordered) - 1)}
        return {"mean": mean, **{name: ordered[i] for name, i in at.items()}, "frames_per_second": 1 / mean}
