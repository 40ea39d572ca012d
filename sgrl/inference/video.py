"""Videos, frame by frame, each frame with the graph of the one before it.

`batches` deals out frame t of many videos at a time, so that an engine works on full batches although each frame waits
for the one before it. `sgrl.inference.stream` does the same for one camera that never ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sgrl.inference.engine import Engine, Generation
from sgrl.models.vlm.chat import RefusedPrompt

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each one made while the one before it is at work: images are opened beside the engine."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, end)
        while (item := waiting.result()) is not end:
            waiting = pool.submit(next, items, end)
            yield item


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
