"""A graph's relations, or a detector's, as a ranked list, as Recall@K wants them: surest first, or as written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from sgrl.errors import SgrlError
from sgrl.graph import Box, SceneGraph
from sgrl.scores import ScoredGraph
from sgrl.text import ParsedGraph
from sgrl.vocabulary import Vocabulary, canonical

spelling = lru_cache(maxsize=1 << 14)(canonical)
"""The text form of a label."""

SCORED = "PairScores, ScoredGraph, Ranked"
"""What ranking metrics take besides texts and graphs, for messages."""

NEVER = np.iinfo(np.int64).max
"""The rank of what no prediction finds."""

Triplet = tuple[str, str, str]
"""Classes of subject and object with the predicate between them."""


class Ranked(NamedTuple):
    """The objects of a graph and its R relations, best first.

    labels: of the N objects, as the graph spells them.
    boxes: (N, 4) float64, x1, y1, x2, y2 in pixels.
    subjects, objects: (R,) int64, positions in `labels`; -1 where a relation names an object that does not exist.
    predicates: R predicates; "<group>__<label>" where relations have groups.
    scores: (R,) float64, never rising; of graphs in [0, 1] and all 1 without confidences: the rank alone orders them.
    """

    labels: list[str]
    boxes: np.ndarray
    subjects: np.ndarray
    predicates: list[str]
    objects: np.ndarray
    scores: np.ndarray


class PairScores(NamedTuple):
    """What a detector says of an image: every pair of objects that it has scored, with all predicates.

    labels: names of the N objects. boxes: (N, 4), x1, y1, x2, y2 in pixels. scores: (N,), all 1 for PredCLS.
    pairs: (R, 2) positions of subject and object. predicate_scores: (R, P), a column for each predicate of the
        vocabulary in its order, without background.

    What ranks a triplet is the product of its subject's, its object's and its predicate's score. Scores that are not
    finite rank last; boxes that are not finite find nothing.
    """

    labels: Sequence[str]
    boxes: np.ndarray
    scores: np.ndarray
    pairs: np.ndarray
    predicate_scores: np.ndarray


def of_scores(
    graph: ScoredGraph, vocabulary: Vocabulary | None
) -> tuple[PairScores | ParsedGraph | SceneGraph, list[float] | None]:
    """A scored prediction of an image as metrics take it, and the confidences of its relations.

    Raises:
        SgrlError: a whole video, or predicates of groups without a vocabulary.
    """
    if graph.whole_video:
        graph.fail("tubes", "a whole video", "an image, or a frame of the video: graph.at(position)")
    if graph.predicate_scores is not None:
        return PairScores(graph.labels, graph.boxes, graph.scores, graph.pairs, graph.predicate_scores), None
    if graph.written:
        return graph.parsed(), None if graph.relation_scores is None else graph.relation_scores.tolist()
    return graph.graph(vocabulary=vocabulary), None


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
        labels = [o.label for o in graph.objects]
        boxes: np.ndarray | list[Box] = graph.boxes
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
        order = confidence_order(confidences, len(relations))
        relations = [relations[i] for i in order]
        scores = np.clip(np.array([_finite(confidences[i]) for i in order], dtype=np.float64), 0.0, 1.0)
    subjects, predicates, objects = zip(*relations, strict=True) if relations else ((), (), ())
    return Ranked(
        list(labels),
        np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(subjects, dtype=np.int64),
        list(predicates),
        np.array(objects, dtype=np.int64),
        scores,
    )


def confidence_order(confidences: Sequence[float | None], relations: int) -> list[int]:
    """Positions of relations from the surest to the least sure, as `ranked` has them; errors as there."""
    if len(confidences) != relations:
        raise SgrlError(
            f"{len(confidences)} confidences for {relations} relations; give one for each, None where unknown"
        )
    scores = [_finite(value) for value in confidences]
    return sorted(range(relations), key=lambda i: -scores[i])


def _finite(value: float | None) -> float:
    """The value, or one behind all others."""
    return -math.inf if value is None or not math.isfinite(value) else float(value)


def plain(graph: SceneGraph | ParsedGraph | Ranked, confidences: Sequence[float | None] | None = None) -> ParsedGraph:
    """Relations best first, boxes finite, labels as text spells them: texts, graphs and vocabularies compare."""
    if isinstance(graph, ParsedGraph):
        labels, boxes, relations = graph
        if confidences is not None:
            relations = [relations[i] for i in confidence_order(confidences, len(relations))]
    else:
        if isinstance(graph, SceneGraph):
            graph = ranked(graph, confidences)
        labels = graph.labels
        boxes = np.where(np.isfinite(graph.boxes).all(axis=1, keepdims=True), graph.boxes, 0.0).tolist()
        relations = list(zip(graph.subjects.tolist(), graph.predicates, graph.objects.tolist(), strict=True))
    return ParsedGraph([spelling(label) for label in labels], boxes, [(s, spelling(p), o) for s, p, o in relations])


def ranked_pairs(
    given: PairScores, predicates: Sequence[str], most: int, *, in_order: bool = False
) -> tuple[Ranked, Ranked]:
    """The ranking with the graph constraint, where every pair has its best predicate, and the `most` best triplets
    without it, where it has all. Equal scores keep the order of pairs and predicates.

    Args:
        predicates: names of the columns.
        in_order: whether the pairs of the first stay as they come.

    Raises:
        SgrlError: arrays that do not fit together.
    """
    boxes = np.asarray(given.boxes, dtype=np.float64).reshape(-1, 4)
    scores = np.asarray(given.scores, dtype=np.float64).reshape(-1)
    pairs = np.asarray(given.pairs, dtype=np.int64).reshape(-1, 2)
    table = np.asarray(given.predicate_scores, dtype=np.float64)
    if not len(given.labels) == len(boxes) == len(scores):
        counts = f"{len(given.labels)} labels, {len(boxes)} boxes and {len(scores)} scores"
        raise SgrlError(f"found {counts}; every object needs one of each")
    if len(pairs) and table.shape != (len(pairs), len(predicates)):
        raise SgrlError(
            f"predicate_scores must have {len(pairs)} rows, one for each pair, and {len(predicates)} columns, one for "
            f"each predicate of the vocabulary and none for background; found {table.shape}"
        )
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < len(boxes)):
        limits = f"{pairs.min()} to {pairs.max()}"
        raise SgrlError(f"pairs must be positions of the {len(boxes)} objects, found {limits}")
    if not len(pairs):
        empty = Ranked(list(given.labels), boxes, pairs[:, 0], [], pairs[:, 1], np.zeros(0))
        return empty, empty
    with np.errstate(all="ignore"):
        table = (scores[pairs[:, 0]] * scores[pairs[:, 1]])[:, None] * table
    table = np.where(np.isfinite(table), table, -np.inf)

    column = table.argmax(axis=1)
    rows = np.arange(len(table))
    if not in_order:
        rows = np.argsort(-table[rows, column], kind="stable")
    best = rows, column[rows]
    free = np.divmod(_largest(table.ravel(), most), table.shape[1])
    with_constraint, without = (
        Ranked(list(given.labels), boxes, pairs[i, 0], [predicates[c] for c in j.tolist()], pairs[i, 1], table[i, j])
        for i, j in (best, free)
    )
    return with_constraint, without


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest, falling, equal ones in order."""
    if k < len(values):
        least = np.partition(values, len(values) - k)[len(values) - k]
        kept = np.flatnonzero(values >= least)
    else:
        kept = np.arange(len(values))
    return kept[np.argsort(-values[kept], kind="stable")][:k]


def first_ranks(graph: ParsedGraph, truth: ParsedGraph, iou_threshold: float, pixel: float = 0.0) -> list[int]:
    """For each reference relation the rank of the first predicted one that finds it: with its classes and predicate,
    and boxes, `pixel` larger on both sides, that both reach `iou_threshold`. NEVER for those that none finds."""
    ranks = [NEVER] * len(truth.relations)
    labels, boxes, _ = truth
    same: dict[tuple[str | None, str, str | None], list[tuple[int, int, int]]] = {}
    for i, (subject, predicate, target) in enumerate(truth.relations):
        same.setdefault((labels[subject], predicate, labels[target]), []).append((i, subject, target))
    said = [*graph.labels, None]  # the last is who does not exist
    near: dict[tuple[int, int], bool] = {}

    def is_near(mine: int, theirs: int) -> bool:
        pair = mine, theirs
        if pair not in near:
            near[pair] = _iou(graph.boxes[mine], boxes[theirs], pixel) >= iou_threshold
        return near[pair]

    # few predictions have the classes of a reference relation, so that no array is worth its making
    for rank, (subject, predicate, target) in enumerate(graph.relations):
        for i, wanted_subject, wanted_target in same.get((said[subject], predicate, said[target]), ()):
            if ranks[i] == NEVER and is_near(subject, wanted_subject) and is_near(target, wanted_target):
                ranks[i] = rank
    return ranks


def _iou(a: Sequence[float], b: Sequence[float], pixel: float) -> float:
    """As sgrl.boxes.iou, of boxes that are `pixel` larger on both sides."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + pixel
    height = min(a[3], b[3]) - max(a[1], b[1]) + pixel
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    union = (a[2] - a[0] + pixel) * (a[3] - a[1] + pixel) + (b[2] - b[0] + pixel) * (b[3] - b[1] + pixel) - shared
    return shared / union if union > 0 else 0.0
