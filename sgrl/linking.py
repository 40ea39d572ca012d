"""Which objects of the frames of a video are one: from graphs of frames to a graph of the video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgrl.boxes import iou
from sgrl.graph import Box, Object, SceneGraph
from sgrl.tubes import BoxTube, TimedRelation, TubeObject, VideoGraph, runs

MOST_OBJECTS, MOST_TRACKS = 2000, 2000
"""Of a frame, and alive: a runaway answer must not become a slow one. Objects beyond are new in each frame."""


class Tracker:
    """Numbers for the objects of a stream of frames, from 1, each given once.

    An object continues the track of its class whose last box it overlaps with most, if the IoU reaches the threshold
    and that box is at most `gap` frames old; else it begins a track. There is no motion model.

    Args:
        iou_threshold: from which two boxes of one class may be one object.
        gap: frames that a track waits for its object.
    """

    def __init__(self, iou_threshold: float = 0.3, gap: int = 30):
        self.iou_threshold, self.gap = iou_threshold, gap
        self._last: dict[int, tuple[str, Box, int]] = {}  # of each track the class, the last box and its frame
        self._frame, self._next = 0, 1

    def update(self, graph: SceneGraph | None) -> tuple[int, ...]:
        """The number of each object of the next frame's graph, None for one without; all in the same coordinates."""
        objects = () if graph is None else graph.objects
        frame, self._frame = self._frame, self._frame + 1
        self._last = {track: last for track, last in self._last.items() if frame - last[2] <= self.gap}
        track_of = self._continued(objects[:MOST_OBJECTS])
        for i, o in enumerate(objects):
            if i not in track_of:
                track_of[i], self._next = self._next, self._next + 1
            if i < MOST_OBJECTS and (track_of[i] in self._last or len(self._last) < MOST_TRACKS):
                self._last[track_of[i]] = o.label, o.box, frame
        return tuple(track_of[i] for i in range(len(objects)))

    def forget(self) -> None:
        """End all tracks; numbers go on."""
        self._last = {}

    def _continued(self, objects: Sequence[Object]) -> dict[int, int]:
        """Position of an object -> the track that it continues."""
        if not (objects and self._last):
            return {}
        tracks = list(self._last)
        overlap = iou([self._last[track][1] for track in tracks], [o.box for o in objects])
        labels = np.array([o.label for o in objects], dtype=object)
        overlap = np.where(
            np.array([[self._last[track][0]] for track in tracks], dtype=object) == labels, overlap, -1.0
        )
        track_of: dict[int, int] = {}
        taken: set[int] = set()
        for place in np.argsort(-overlap, axis=None, kind="stable").tolist():
            row, column = divmod(place, overlap.shape[1])
            if overlap[row, column] < self.iou_threshold or len(taken) == min(overlap.shape):
                break
            if column not in track_of and row not in taken:
                track_of[column] = tracks[row]
                taken.add(row)
        return track_of


def link(graphs: Sequence[SceneGraph | None], iou_threshold: float = 0.5, gap: int = 5) -> list[list[int]]:
    """Which object of a frame is which of the frames before: a `Tracker`'s numbers, but from 0, for each graph."""
    tracker = Tracker(iou_threshold, gap)
    return [[number - 1 for number in tracker.update(graph)] for graph in graphs]


def linked(graphs: Sequence[SceneGraph | None], iou_threshold: float = 0.5, gap: int = 5) -> VideoGraph:
    """One graph of a video from the graphs of its frames, as a model writes them frame by frame.

    `link` says which objects make a tube. A relation holds where the graph of the frame has it. Its score is the sum
    of its scores in the frames (1 without a score), divided by the number of frames: what is sure and lasts ranks
    first.

    Args:
        graphs: of the frames in order, None for one without a graph.
    """
    labels: dict[int, str] = {}
    boxes: dict[int, dict[int, tuple]] = {}  # of each tube, by frame
    held: dict[tuple[int, str, int], dict[int, float]] = {}
    for frame, (graph, tubes) in enumerate(zip(graphs, link(graphs, iou_threshold, gap), strict=True)):
        if graph is None:
            continue
        for o, tube in zip(graph.objects, tubes, strict=True):
            labels.setdefault(tube, o.label)
            boxes.setdefault(tube, {})[frame] = o.box
        for r in graph.relations:
            frames = held.setdefault((tubes[r.subject], r.predicate, tubes[r.object]), {})
            frames[frame] = max(frames.get(frame, 0.0), 1.0 if r.score is None else r.score)
    objects = [
        TubeObject(label, BoxTube([boxes[tube].get(frame) for frame in range(len(graphs))]))
        for tube, label in labels.items()
    ]
    relations = [
        TimedRelation(subject, predicate, target, runs(sorted(frames)), sum(frames.values()) / len(graphs))
        for (subject, predicate, target), frames in held.items()
    ]
    return VideoGraph(objects, relations)
