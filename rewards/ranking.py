"""A graph's relations as a ranked list, as Recall@K wants them: surest first, or in the order of writing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sgrl.errors import SgrlError
from sgrl.graph import SceneGraph
from sgrl.text import ParsedGraph


class Ranked(NamedTuple):
    """The objects of a graph and its R relations, best first.

    labels: of the N objects, as the graph spells them.
    boxes: (N, 4) float64, x1, y1, x2, y2 in pixels.
    subjects, objects: (R,) int64, positions in `labels`; -1 where a relation names an object that does not exist.
    predicates: R predicates; "<group>__<label>" where relations have groups.
    scores: (R,) float64, never rising, in [0, 1]; all 1 without confidences, so that the rank alone orders them.
    """

    labels: list[str]
    boxes: np.ndarray
    subjects: np.ndarray
    predicates: list[str]
    objects: np.ndarray
    scores: np.ndarray


def ranked(graph: ParsedGraph | SceneGraph, confidences: Sequence[float | None] | None = None) -> Ranked:
    """Rank the relations of a graph.

    Args:
        graph: what a codec read; repeated relations stay, each with a rank of its own.
        confidences: one per relation (`sgrl.inference.confidence`), ranked from high to low, equal ones in the order
            of writing. None or no number: behind all others, with score 0. Without confidences: a SceneGraph's own
            scores if its relations have any, else the order of writing.

    Raises:
        SgrlError: not as many confidences as relations.

    >>> graph = ParsedGraph(["cat", "mat"], [(0, 0, 9, 9), (0, 5, 9, 9)], [(0, "near", 1), (0, "on", 1)])
    >>> ranked(graph).predicates, ranked(graph, [0.2, 0.9]).predicates
    (['near', 'on'], ['on', 'near'])
    """
    if isinstance(graph, SceneGraph):
        labels, boxes = [o.label for o in graph.objects], graph.boxes
        relations = [
            (r.subject, r.predicate if r.group is None else f"{r.group}__{r.predicate}", r.object)
            for r in graph.relations
        ]
        if confidences is None and any(r.score is not None for r in graph.relations):
            confidences = [r.score for r in graph.relations]
    else:
        labels, boxes, relations = graph
    scores = np.ones(len(relations))
    if confidences is not None:
        if len(confidences) != len(relations):
            raise SgrlError(
                f"{len(confidences)} confidences for {len(relations)} relations; give one for each, None where unknown"
            )
        scores = np.array([_finite(value) for value in confidences], dtype=np.float64)
        order = np.argsort(-scores, kind="stable")
        relations = [relations[i] for i in order.tolist()]
        scores = np.clip(scores[order], 0.0, 1.0)
    subjects, predicates, objects = zip(*relations, strict=True) if relations else ((), (), ())
    return Ranked(
        list(labels),
        np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(subjects, dtype=np.int64),
        list(predicates),
        np.array(objects, dtype=np.int64),
        scores,
    )


def _finite(value: float | None) -> float:
    """The value, or one behind all others."""
    return -math.inf if value is None or not math.isfinite(value) else float(value)
