"""Which predicted object is which reference object, and how many relations are right.

Everything here works on one reference and all predictions made for it, because a group of completions in GRPO shares
its reference: one broadcast computes the geometry of the whole group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sgrl.text.parsed import ParsedGraph

Similarity = Callable[[str, str], float]

LARGEST_BROADCAST = 1 << 13
"""Pairs of boxes compared at once: arrays of this size stay in the cache, and memory does not grow with the group."""


def in_order(graph: ParsedGraph) -> tuple[ParsedGraph, list[int]]:
    """The graph with its objects sorted by box and label, and the old position of each new one.

    Of several assignments of equal cost, the solver takes one that depends on the order of rows and columns. Sorted,
    they are the same for the same objects, and so is every score.
    """
    labels, boxes, relations = graph
    keys = list(zip(boxes, labels, strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    return (
        ParsedGraph(
            [labels[old] for old in order],
            [boxes[old] for old in order],
            [(place[subject], predicate, place[target]) for subject, predicate, target in relations],
        ),
        order,
    )


class Reference:
    """A reference graph, prepared once for all predictions that are compared with it.

    Attributes:
        labels, relations: as in ParsedGraph, the objects in order (see in_order).
        boxes: (N, 4) float64.
        stands_for: for each object the one that its id means, if ids stand twice; None if each means its own.

    Args:
        same_id: the same, by positions in the graph.
    """

    __slots__ = ("labels", "boxes", "relations", "stands_for", "ids", "_id_of", "_by_triplet")

    def __init__(self, graph: ParsedGraph, same_id: Sequence[int] | None = None):
        (self.labels, boxes, self.relations), order = in_order(graph)
        self.stands_for: np.ndarray | None = None
        if same_id is not None and list(same_id) != list(range(len(order))):
            place = {old: new for new, old in enumerate(order)}
            self.stands_for = np.array([place[same_id[old]] for old in order])
        self.boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        self._id_of: dict[str, int] = {}
        for label in self.labels:
            self._id_of.setdefault(label, len(self._id_of))
        self.ids = self.label_ids(self.labels)
        self._by_triplet: dict[tuple[str, str, str], list[tuple[int, int, int]]] = {}
        for i, (subject, predicate, target) in enumerate(self.relations):
            triplet = (self.labels[subject], predicate, self.labels[target])
            self._by_triplet.setdefault(triplet, []).append((i, subject, target))

    def label_ids(self, labels: Sequence[str]) -> np.ndarray:
        """A number for each label; -1 for all that the reference does not have. Compare with `ids`."""
        number = self._id_of.get
        return np.array([number(label, -1) for label in labels], dtype=np.int64)

    def candidates(self, graph: ParsedGraph, offsets: Sequence[int], near: set[int]) -> list[list[int]]:
        """For each predicted relation that could be right: the reference relations that it could be.

        A predicted relation may stand for a reference relation of equal predicate and equal classes whose subject and
        object both lie near enough: `near` holds offsets[predicted object] + reference object of near pairs.
        """
        labels = graph.labels
        triplets = self._by_triplet
        found = []
        for subject, predicate, target in graph.relations:
            same = triplets.get((labels[subject], predicate, labels[target]))
            if same is not None:
                s, t = offsets[subject], offsets[target]
                near_same = [i for i, rs, rt in same if s + rs in near and t + rt in near]
                if near_same:
                    found.append(near_same)
        return found


def count_matches(candidates: Sequence[Sequence[int]]) -> int:
    """Size of a maximum one-to-one matching; `candidates[i]` lists the partners that i may take.

    Taking the first free partner is right whenever nobody is left over, which is nearly always. Otherwise greedy may
    fall short (a crowd of overlapping objects of one class), and Hopcroft-Karp decides.
    """
    taken: set[int] = set()
    for partners in candidates:
        for partner in partners:
            if partner not in taken:
                taken.add(partner)
                break
    matched = len(taken)
    if matched == len(candidates):
        return matched
    everyone = {partner for partners in candidates for partner in partners}
    if matched == len(everyone):
        return matched
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    column = {partner: i for i, partner in enumerate(everyone)}
    rows = [i for i, partners in enumerate(candidates) for _ in partners]
    columns = [column[partner] for partners in candidates for partner in partners]

    graph = csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(candidates), len(everyone)))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


@dataclass(frozen=True, slots=True)
class Geometry:
    """How P predicted boxes lie to N reference boxes; each field (P, N)."""

    iou: np.ndarray
    giou: np.ndarray
    l1: np.ndarray


def geometry(predicted: np.ndarray, reference: np.ndarray, width: float, height: float) -> Geometry:
    """IoU, generalised IoU and normalised L1 distance of all pairs in one pass.

    Same definitions as `sgrl.boxes`, which states them one by one; boxes (P, 4) and (N, 4) must have corners in order.
    """
    a = np.ascontiguousarray(predicted.T)[:, :, None]
    b = np.ascontiguousarray(reference.T)[:, None, :]
    size = np.array([width, height], dtype=np.float64)[:, None, None]
    overlap = np.minimum(a[2:], b[2:])
    overlap -= np.maximum(a[:2], b[:2])
    hull = np.maximum(a[2:], b[2:])
    hull -= np.minimum(a[:2], b[:2])
    # |a1 - b1| + |a2 - b2| along one axis is the length of the hull minus that of the (perhaps negative) overlap
    distance = hull - overlap
    distance /= size
    np.maximum(overlap, 0.0, out=overlap)
    inter = overlap[0] * overlap[1]
    union = (a[2] - a[0]) * (a[3] - a[1]) + np.maximum(b[2] - b[0], 0.0) * np.maximum(b[3] - b[1], 0.0)
    union -= inter
    area = hull[0] * hull[1]
    iou = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    # iou - (area - union) / area
    giou = np.divide(union, area, out=np.ones_like(area), where=area > 0)
    giou += iou
    giou -= 1.0
    return Geometry(iou, giou, distance[0] + distance[1])


def label_similarity(predicted: Sequence[str], reference: Reference, similarity: Similarity) -> np.ndarray:
    """(P, N) similarities of labels."""
    columns = {label: [similarity(label, other) for other in reference.labels] for label in set(predicted)}
    return np.array([columns[label] for label in predicted], dtype=np.float64).reshape(
        len(predicted), len(reference.labels)
    )


def assign(cost: np.ndarray, maximize: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Hungarian assignment of least (or greatest) cost: rows and columns of the min(P, N) pairs (none is too dear)."""
    from scipy.optimize import linear_sum_assignment  # half a second to import, which only a score needs

    rows, columns = linear_sum_assignment(cost, maximize=maximize)
    return rows, columns
