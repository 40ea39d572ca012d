"""Which object of a frame is which of the frames before: by label and overlap, as the simplest trackers do.

In each frame the objects are assigned to the tracks so that the sum of the overlaps is largest (the Hungarian method),
where a pair needs the same label and at least `least` IoU. An object without a track begins one; a track without an
object lives on for `patience` frames at its last place. There is no motion model: objects that move by more than about
their own size between two frames get a new number.
"""

from __future__ import annotations

from sgrl.boxes import iou
from sgrl.graph import Box, SceneGraph

LEAST, PATIENCE = 0.3, 30

MOST_OBJECTS, MOST_TRACKS = 200, 1000
"""Of a frame, and alive: a runaway answer must not become a slow one. Objects beyond are new in each frame."""


class Tracker:
    """Numbers for the objects of a stream, from 1, each given once.

    Args:
        least: intersection over union from which two boxes of one label may be one object.
        patience: frames that a track waits for its object.
    """

    def __init__(self, least: float = LEAST, patience: int = PATIENCE):
        self.least, self.patience = least, patience
        self._tracks: dict[int, tuple[str, Box, int]] = {}  # label, last box, frames since it was seen
        self._next = 1

    def update(self, graph: SceneGraph) -> tuple[int, ...]:
        """The number of each object of the next frame's graph; all graphs of a stream in one frame of coordinates."""
        numbers: list[int | None] = [None] * len(graph.objects)
        for label in {o.label for o in graph.objects[:MOST_OBJECTS]}:
            self._assign(label, graph, numbers)
        seen: dict[int, tuple[str, Box, int]] = {}
        given: list[int] = []
        for known, found in zip(numbers, graph.objects, strict=True):
            if known is None:
                known, self._next = self._next, self._next + 1
            if len(given) < MOST_OBJECTS:
                seen[known] = (found.label, found.box, 0)
            given.append(known)
        for number, (label, box, age) in self._tracks.items():
            if number not in seen and age < self.patience and len(seen) < MOST_TRACKS:
                seen[number] = (label, box, age + 1)  # youngest first, as they stand
        self._tracks = seen
        return tuple(given)

    def forget(self) -> None:
        """End all tracks; numbers go on."""
        self._tracks = {}

    def _assign(self, label: str, graph: SceneGraph, numbers: list[int | None]) -> None:
        """Give the objects of a label the tracks of that label that they overlap."""
        from scipy.optimize import linear_sum_assignment

        here = [index for index, o in enumerate(graph.objects[:MOST_OBJECTS]) if o.label == label]
        tracks = [number for number, (name, _, _) in self._tracks.items() if name == label]
        if not tracks:
            return
        overlaps = iou([graph.objects[index].box for index in here], [self._tracks[number][1] for number in tracks])
        overlaps[overlaps < self.least] = 0
        for row, column in zip(*linear_sum_assignment(-overlaps), strict=True):
            if overlaps[row, column]:
                numbers[here[row]] = tracks[column]
