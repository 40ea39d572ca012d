"""Videos, frame by frame, each frame with the graph of the one before it.

`batches` deals out frame t of many videos at a time, so that an engine works on full batches although each frame waits
for the one before it. `SceneGraphStream` does the same for one camera that never ends.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgrl.context import context_of, warn_of_context
from sgrl.errors import SgrlError
from sgrl.graph import SceneGraph
from sgrl.inference.engine import Engine, Generation
from sgrl.inference.presentation import Presentation, resized_text
from sgrl.models.vlm.chat import RefusedPrompt
from sgrl.prompts import with_context
from sgrl.text import Codec


def batches(units: Sequence[Sequence[int]], width: int) -> Iterator[list[int]]:
    """The indices in `units`, each unit's in order and never two of one unit in a batch; at most `width` at a time.

    A unit is a video, or a single image. The next one takes the place of one that ends.

    >>> list(batches([[0, 1, 2], [3], [4, 5]], width=2))
    [[0, 3], [1, 4], [2, 5]]
    """
    waiting = iter(units)
    running: list[Iterator[int]] = []
    while True:
        batch: list[int] = []
        still: list[Iterator[int]] = []
        for unit in running:
            index = next(unit, None)
            if index is not None:
                batch.append(index)
                still.append(unit)
        while len(batch) < width:
            numbers = next(waiting, None)
            if numbers is None:
                break
            unit = iter(numbers)
            index = next(unit, None)
            if index is not None:
                batch.append(index)
                still.append(unit)
        running = still
        if not batch:
            return
        yield batch


def generate_apart(engine: Engine, images: Sequence, prompts: Sequence, grammars: Sequence) -> list[Generation]:
    """`engine.generate`, where a prompt that the engine refuses is "refused" for its own image alone."""
    try:
        return engine.generate(images, prompts, grammars)
    except RefusedPrompt as error:
        if len(images) == 1:
            return [Generation("", 0, 0.0, "refused", error=str(error))]
    half = len(images) // 2
    parts = (slice(half), slice(half, None))
    return [done for part in parts for done in generate_apart(engine, images[part], prompts[part], grammars[part])]


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """What `SceneGraphStream.push` returns.

    graph: in pixels of the image that was pushed; without objects if none could be read. text: as the model wrote it.
    latency: seconds from the image to the graph.
    """

    graph: SceneGraph
    text: str
    latency: float
    finish_reason: str


class SceneGraphStream:
    """Live use: push a frame, get its graph, which the next frame then starts from.

        stream = SceneGraphStream.like(load_engine("auto", MODEL), DATASET)
        for image in camera:
            graph = stream.push(image).graph

    `like` asks as the rows of a data set do and takes images of any size; the constructor is for other prompts.

    Args:
        engine: see `load_engine`.
        codec: the layout that the model writes.
        prompt: the user's message without context, as the model was trained with (see `scene_graph_prompt`).
        context: "generated" hands on the stream's own last graph, "none" looks at each frame alone. None: as the
            engine's model was trained; "generated" where it does not say.
        grammar: an EBNF that the answers follow (see `sgrl.text.grammar`).

    Attributes:
        latencies: of the frames so far, seconds, the last 10,000.
    """

    def __init__(
        self, engine: Engine, codec: Codec, prompt: str, context: str | None = None, grammar: str | None = None
    ):
        if context not in (None, "none", "generated"):
            raise SgrlError(f"a stream's context is 'none' or 'generated', found {context!r}")
        trained = getattr(engine, "trained_context", None)
        if context is None:
            context = "none" if trained == "none" else "generated"
        else:
            warn_of_context(context, trained)
        self.engine, self.codec, self.context, self.grammar = engine, codec, context, grammar
        self._chat = [{"role": "user", "content": prompt}]
        self._presentation: Presentation | None = None
        self._previous: str | None = None
        self._frame: tuple[int, int] | None = None
        self.latencies: collections.deque[float] = collections.deque(maxlen=10_000)

    @classmethod
    def like(cls, engine: Engine, dataset: str, context: str | None = None) -> SceneGraphStream:
        """A stream that shows images and asks about them as the rows of the data set that the model was trained on."""
        presentation = Presentation(dataset)
        stream = cls(engine, presentation.codec, "", context)
        stream._presentation = presentation
        return stream

    def push(self, image, width: int | None = None, height: int | None = None) -> StreamFrame:
        """The graph of the next frame.

        A frame whose answer holds no graph, or that fails, leaves the context as it was.

        Args:
            image: a PIL image; without `like`, of the size that the model was trained with.
            width, height: without `like`, the frame in which the model writes, if it is not the image in pixels (1000
                x 1000 for norm1000).
        """
        start = time.perf_counter()
        shown, size, chat = image, (width or image.width, height or image.height), self._chat
        if self._presentation:
            shown = self._presentation.shown(image)
            size = self._presentation.frame(shown)
            chat = [{"role": "user", "content": self._presentation.prompt(size)}]
        if self._previous is not None and self._frame is not None and size != self._frame:
            self._previous = resized_text(self._previous, self.codec, self._frame, size)
        self._frame = size
        (done,) = generate_apart(self.engine, [shown], [with_context(chat, self._previous)], [self.grammar])
        graph, _ = self.codec.recover(done.text, *size)
        if self.context == "generated" and graph.objects:
            self._previous = context_of(done.text, self.codec, *size)
        latency = time.perf_counter() - start
        self.latencies.append(latency)
        return StreamFrame(graph.resized(*image.size), done.text, latency, done.finish_reason)

    def reset(self) -> None:
        """Forget the last graph: the next frame begins another scene."""
        self._previous = None

    def latency(self) -> dict[str, float]:
        """Mean, median and 95th percentile of the latencies in seconds, and frames per second; zeros before any."""
        ordered = sorted(self.latencies)
        if not ordered:
            return dict.fromkeys(("mean", "median", "p95", "frames_per_second"), 0.0)
        mean = sum(ordered) / len(ordered)
        at = {"median": len(ordered) // 2, "p95": min(int(len(ordered) * 0.95), len(ordered) - 1)}
        return {"mean": mean, **{name: ordered[i] for name, i in at.items()}, "frames_per_second": 1 / mean}
