"""Which objects of the frames of a video are one: from graphs of frames to a graph of the video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgrl.boxes import iou
from sgrl.graph import SceneGraph
from sgrl.tubes import BoxTube, TimedRelation, TubeObject, VideoGraph, runs


def link(graphs: Sequence[SceneGraph | None], iou_threshold: float = 0.5, gap: int = 5) -> list[list[int]]:
    """Which object of a frame is which of the frames before: for each graph a number, from 0, for each of its objects.

    An object continues the track of its class whose last box it overlaps with most, if the IoU reaches the threshold
    and that box is at most `gap` frames old; else it begins a track.

    Args:
        graphs: of the frames in order, None for one without a graph.
    """
    labels: list[str] = []
    last: list[tuple[int, tuple]] = []  # of each track the last frame and the box in it
    numbers: list[list[int]] = []
    for frame, graph in enumerate(graphs):
        objects = () if graph is None else graph.objects
        recent = [i for i, (seen, _) in enumerate(last) if frame - seen <= gap] if objects else []
        overlap = iou([last[i][1] for i in recent], [o.box for o in objects])
        same = np.array([[labels[i] == o.label for o in objects] for i in recent], dtype=bool)
        overlap = np.where(same.reshape(overlap.shape), overlap, -1.0)
        track_of: dict[int, int] = {}
        taken: set[int] = set()
        for place in np.argsort(-overlap, axis=None, kind="stable").tolist():
            row, column = divmod(place, overlap.shape[1])
            if overlap[row, column] < iou_threshold or len(taken) == min(overlap.shape):
                break
            if column not in track_of and row not in taken:
                track_of[column] = recent[row]
                taken.add(row)
        for i, o in enumerate(objects):
            if i not in track_of:
                track_of[i] = len(labels)
                labels.append(o.label)
                last.append((frame, o.box))
            last[track_of[i]] = frame, o.box
        numbers.append([track_of[i] for i in range(len(objects))])
    return numbers


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
