"""The reward terms of SceneGraphVLM (section 3.4 and table 5 of the paper), unweighted.

With N reference objects, M predicted ones, g and p relations, t relations matched one to one, over the pairs of the
Hungarian assignment:

    object_class            pairs of equal label / max(N, M)
    object_box              sum of (2 IoU + 5 exp(-L1)) / 7 / max(N, M), whatever the labels
    relation_recall         t / g, relation_precision t / p, relation_f1 their harmonic mean; 0 without relations
    object_hallucination    -(M - h) / M, h pairs of equal label and IoU >= threshold
    relation_hallucination  -((p - t) / p)^2

Where neither side has an object, nothing is missing and nothing made up: the object terms are 1. A text that is not
valid scores 0 in every term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from rewards.matching import Reference, Similarity, assign, count_matches, geometry, label_similarity
from sgrl.text.parsed import ParsedGraph

TERMS: dict[str, tuple[float, float]] = {
    "format": (0.0, 1.0),
    "object_class": (0.0, 1.0),
    "object_box": (0.0, 1.0),
    "relation_recall": (0.0, 1.0),
    "relation_precision": (0.0, 1.0),
    "relation_f1": (0.0, 1.0),
    "object_hallucination": (-1.0, 0.0),
    "relation_hallucination": (-1.0, 0.0),
}
"""Term -> its least and its greatest value."""

COUNTS = (
    "objects_predicted",
    "objects_reference",
    "objects_matched",
    "objects_grounded",
    "relations_predicted",
    "relations_reference",
    "relations_matched",
)


@dataclass(frozen=True, slots=True)
class GraphScore:
    """What one completion is worth. Equal completions of one call may share one GraphScore.

    Attributes:
        valid: tags and layout as required.
        reason: why not, else None.
        terms: unweighted rewards in [0, 1], penalties in [-1, 0]; all 0 for a text that cannot be scored.
        counts: see COUNTS; predicted and matched ones are 0 for a text that cannot be scored.
        diagnostics: of any text: no_relation, num_objects, num_relations, invalid_relation_fraction, has_answer_tags.
    """

    valid: bool
    reason: str | None
    terms: dict[str, float]
    counts: dict[str, int]
    diagnostics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Settings:
    """What scoring one image size depends on. See GraphScorer for the meaning of each field."""

    width: int
    height: int
    iou_threshold: float = 0.5
    relation_iou_threshold: float = 0.5
    matching_weights: tuple[float, float, float] = (1.0, 2.0, 5.0)
    hallucination_power: float = 2.0
    similarity: Similarity | None = None
    task: str = "sgg"
    strict_format: bool = True
    published: bool = False


def score_group(
    reference: Reference, graphs: Sequence[ParsedGraph], settings: Settings
) -> list[tuple[dict[str, float], dict[str, int]]]:
    """Terms and counts of valid predictions that share one reference."""
    n, g = len(reference.labels), len(reference.relations)
    sizes = [len(graph.labels) for graph in graphs]
    ends = np.cumsum(sizes).tolist()
    owner = np.repeat(np.arange(len(graphs)), sizes)
    labels = [label for graph in graphs for label in graph.labels]
    ids = reference.label_ids(labels)
    flat = chain.from_iterable(box for graph in graphs for box in graph.boxes)
    boxes = np.fromiter(flat, dtype=np.float64, count=4 * ends[-1]).reshape(-1, 4)
    # each graph's objects in order, for the reason given at matching.in_order
    kind = ids if settings.similarity is None else np.unique(labels, return_inverse=True)[1]
    order = np.lexsort((kind, boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], owner))
    row_of = np.empty_like(order)
    row_of[order] = np.arange(len(order))
    offsets = (row_of * n).tolist()

    pairs = geometry(boxes[order], reference.boxes, settings.width, settings.height)
    same = ids[order][:, None] == reference.ids[None, :]
    similar = same
    if settings.similarity is not None:
        similar = label_similarity([labels[i] for i in order], reference, settings.similarity).clip(0.0, 1.0)
    label_weight, giou_weight, l1_weight = settings.matching_weights
    # label (1 - similarity) + giou (1 - GIoU) + l1 L1, less a constant
    cost = pairs.l1 * l1_weight
    cost -= pairs.giou * giou_weight
    cost -= similar * label_weight

    rows, columns = [], []
    for size, end in zip(sizes, ends, strict=True):
        row, column = assign(cost[end - size : end])
        rows.append(row + (end - size))
        columns.append(column)
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    owners = owner[rows]
    if reference.stands_for is not None:
        columns = reference.stands_for[columns]
    iou = pairs.iou[rows, columns]
    equal = same[rows, columns]
    quality = iou * giou_weight + np.exp(-pairs.l1[rows, columns]) * l1_weight
    quality /= max(1e-9, giou_weight + l1_weight)

    def per_graph(values: np.ndarray) -> list[float]:
        sums: list[float] = np.bincount(owners, weights=values, minlength=len(graphs)).tolist()
        return sums

    similar_sums = per_graph(similar[rows, columns])
    box_sums = per_graph(quality)
    matched = per_graph(equal)
    grounded = per_graph(equal * (iou >= settings.iou_threshold))
    near: set[int] = set()
    if reference.relations:
        near.update(np.flatnonzero((pairs.iou >= settings.relation_iou_threshold) & same).tolist())

    scored = []
    for i, graph in enumerate(graphs):
        m, p = sizes[i], len(graph.relations)
        t = count_matches(reference.candidates(graph, offsets[ends[i] - m : ends[i]], near)) if near and p else 0
        larger = max(n, m)
        ungrounded = (m - grounded[i]) / m if m else 0.0
        wrong = (p - t) / p if p and (g or not settings.published) else 0.0
        terms = {
            "format": 1.0,
            "object_class": similar_sums[i] / larger if larger else 1.0,
            "object_box": box_sums[i] / larger if larger else 1.0,
            "relation_recall": t / g if g else 0.0,
            "relation_precision": t / p if p else 0.0,
            "relation_f1": 2.0 * t / (p + g) if t else 0.0,
            "object_hallucination": 0.0 - ungrounded,
            "relation_hallucination": 0.0 - wrong**settings.hallucination_power,
        }
        counts = {
            "objects_predicted": m,
            "objects_reference": n,
            "objects_matched": int(matched[i]),
            "objects_grounded": int(grounded[i]),
            "relations_predicted": p,
            "relations_reference": g,
            "relations_matched": t,
        }
        scored.append((terms, counts))
    return scored
