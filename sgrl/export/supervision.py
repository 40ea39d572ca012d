"""`supervision.Detections` of a graph: its objects for the annotators, trackers and metrics of that library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sgrl.export.items import Frame, Track, ordered
from sgrl.extras import require
from sgrl.graph import SceneGraph
from sgrl.inference.prediction import Prediction

if TYPE_CHECKING:
    from supervision import Detections


def to_supervision(
    graph: SceneGraph | Prediction | Frame, classes: Sequence[str] | None = None, tracks: Sequence[Track] | None = None
) -> Detections:
    """The objects of an image or a frame, in their order.

    `data["class_name"]` has the labels, and `metadata["relations"]` the relations: (subject, predicate, object,
    score), ends as positions. Objects without a score have confidence 1; without any score there is no confidence.

    Args:
        classes: number the labels by their position, such as the objects of a vocabulary; a label that is not among
            them is numbered after them. Without: in the order in which they come.
        tracks: of the objects, -1 where None; those of the prediction or the frame unless given. Only numbers can be
            held.

    Raises:
        SgrlError: supervision is not installed.
    """
    supervision = require("supervision", what="Detections")
    if not isinstance(graph, SceneGraph):
        tracks = graph.tracks if tracks is None else tracks
        graph = graph.graph
    numbers = {label: number for number, label in enumerate(classes or ())}
    labels = [o.label for o in graph.objects]
    scores = [o.score for o in graph.objects]
    numbered = None if tracks is None else np.array([t if isinstance(t, int) else -1 for t in tracks], dtype=int)
    return supervision.Detections(
        xyxy=np.array([ordered(o.box) for o in graph.objects], dtype=np.float64).reshape(-1, 4),
        class_id=np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=int),
        confidence=np.array([1.0 if s is None else s for s in scores]) if any(s is not None for s in scores) else None,
        tracker_id=numbered,
        data={"class_name": np.array(labels, dtype=object)},
        metadata={"relations": [(r.subject, r.predicate, r.object, r.score) for r in graph.relations]},
    )
