"""Videos, frame by frame, each frame with the graph of the one before it.

`batches` deals out frame t of many videos at a time, so that an engine works on full batches although each frame waits
for the one before it. `SceneGraphStream` does the same for one camera that never ends.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgrl.context import context_of, with_context
from sgrl.errors import SgrlError
from sgrl.graph import SceneGraph
from sgrl.inference.engines import Engine, Generation, RefusedPrompt
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
            unit = next(waiting, None)
            if unit is None:
                break
            unit = iter(unit)
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
    return [
        generation
        for one in zip(images, prompts, grammars, strict=True)
        for generation in generate_apart(engine, *([column] for column in one))
    ]


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """What `SceneGraphStream.push` returns.

    graph: without objects if none could be read. latency: seconds from the image to the graph.
    """

    graph: SceneGraph
    text: str
    latency: float
    finish_reason: str


class SceneGraphStream:
    """Live use: push a frame, get its graph, which the next frame then starts from.

        stream = SceneGraphStream(load_engine("auto", MODEL), get_codec("toon"), "Write the scene graph.")
        for image in camera:
            graph = stream.push(image).graph

    Args:
        engine: see `load_engine`.
        codec: the layout that the model writes.
        prompt: the user's message without context, as the model was trained with (see `scene_graph_prompt`).
        context: "generated" hands on the stream's own last graph, "none" looks at each frame alone.
        grammar: an EBNF that the answers follow (see `sgrl.text.grammar`).

    Attributes:
        latencies: of the frames so far, seconds, the last 10,000.
    """

    def __init__(
        self, engine: Engine, codec: Codec, prompt: str, context: str = "generated", grammar: str | None = None
    ):
        if context not in ("none", "generated"):
            raise SgrlError(f"a stream's context is 'none' or 'generated', found {context!r}")
        self.engine, self.codec, self.context, self.grammar = engine, codec, context, grammar
        self._chat = [{"role": "user", "content": prompt}]
        self._previous: str | None = None
        self.latencies: collections.deque[float] = collections.deque(maxlen=10_000)

    def push(self, image, width: int | None = None, height: int | None = None) -> StreamFrame:
        """The graph of the next frame.

        A frame whose answer holds no graph, or that fails, leaves the context as it was.

        Args:
            image: a PIL image of the size that the model was trained with.
            width, height: frame of the coordinates, if it is not the image in pixels (1000 x 1000 for norm1000).
        """
        start = time.perf_counter()
        size = (width or image.width, height or image.height)
        chat = with_context(self._chat, self._previous)
        (done,) = generate_apart(self.engine, [image], [chat], [self.grammar])
        graph, _ = self.codec.recover(done.text, *size)
        if self.context == "generated" and graph.objects:
            self._previous = context_of(done.text, self.codec, *size)
        latency = time.perf_counter() - start
        self.latencies.append(latency)
        return StreamFrame(graph, done.text, latency, done.finish_reason)

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
