"""What the metrics of Action Genome count: hits of one frame, and sums over frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rewards.matching import assign, in_order
from rewards.metrics.ranking import Ranked
from rewards.metrics.sums import Sums
from sgrl.boxes import iou
from sgrl.errors import SgrlError
from sgrl.text import ParsedGraph
from sgrl.vocabulary import Vocabulary

NMS_OVERLAP = 0.9
_TIE = 1e-6  # what an equal class adds to an IoU

TASKS = ("sgdet", "sgcls", "predcls")
"""What a model is given: nothing, the reference's boxes, or its boxes and classes."""


class Triplets(NamedTuple):
    """R relations over N objects; of a prediction, best first.

    boxes: (N, 4) float64 xyxy. labels: (N,) positions in the vocabulary's objects, -1 for what it does not have.
    subjects, objects: (R,) positions in `labels`, -1 for nothing. predicates: (R,) positions in the vocabulary's
    predicates, -1 for what it does not have.
    """

    boxes: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    predicates: np.ndarray
    objects: np.ndarray

    def only(self, which: slice | np.ndarray) -> Triplets:
        """Some of the relations: a slice, positions, or a bool for each."""
        return self._replace(
            subjects=self.subjects[which], predicates=self.predicates[which], objects=self.objects[which]
        )


def aligned(graph: Ranked, truth: Ranked, classes: bool) -> Ranked:
    """Objects on the boxes, with `classes` also with the classes, of the reference objects that they overlap with."""
    mine, my_order = in_order(ParsedGraph(graph.labels, list(map(tuple, graph.boxes.tolist())), []))
    others, other_order = in_order(ParsedGraph(truth.labels, list(map(tuple, truth.boxes.tolist())), []))
    equal = np.array([[label == other for other in others.labels] for label in mine.labels])
    overlap = iou(mine.boxes, others.boxes)
    labels, boxes = list(graph.labels), graph.boxes.copy()
    for i, j in zip(*assign(-(overlap + _TIE * equal.reshape(overlap.shape))), strict=True):
        if overlap[i, j] > 0:
            boxes[my_order[i]] = truth.boxes[other_order[j]]
            if classes:
                labels[my_order[i]] = truth.labels[other_order[j]]
    return graph._replace(labels=labels, boxes=boxes)


def hits(predicted: Triplets, truth: Triplets, iou_threshold: float, pixel: float = 0.0) -> np.ndarray:
    """(R, G) bool: equal predicates, equal classes, both boxes near enough; `pixel` is added to the size of boxes."""
    wider = np.array([0.0, 0.0, pixel, pixel])
    with np.errstate(all="ignore"):  # a detector's NaN overlaps with nothing
        overlap = iou(predicted.boxes + wider, truth.boxes + wider)
    # one row more, which is what -1 points to: nothing, which is nowhere
    near = np.zeros((len(predicted.labels) + 1, len(truth.labels)), dtype=bool)
    near[:-1] = (overlap >= iou_threshold) & (predicted.labels[:, None] == truth.labels)
    found: np.ndarray = predicted.predicates[:, None] == truth.predicates
    found &= near[predicted.subjects[:, None], truth.subjects]
    found &= near[predicted.objects[:, None], truth.objects]
    return found


def suppressed(graph: Triplets, pixel: tuple[float, float]) -> Triplets:
    """Without the proposals that repeat a better one: same classes and predicate, and IoU of the subjects times IoU of
    the objects greater than 0.9, boxes larger by a `pixel`'s width and height (OED's triplet NMS)."""
    labels, predicates = np.append(graph.labels, -1) + 1, graph.predicates + 1
    base = max(int(labels.max()), int(predicates.max(initial=0))) + 1
    key = (labels[graph.subjects] * base + labels[graph.objects]) * base + predicates
    better, worse = np.nonzero(np.triu(key[:, None] == key, 1))
    wider = graph.boxes + np.array([0.0, 0.0, *pixel])
    with np.errstate(all="ignore"):
        overlap = np.pad(iou(wider, wider), (0, 1))  # a row and a column for -1, which is nowhere
        near = overlap[graph.subjects[better], graph.subjects[worse]]
        near = near * overlap[graph.objects[better], graph.objects[worse]] > NMS_OVERLAP
    kept = np.ones(len(key), dtype=bool)
    for i, j in zip(better[near].tolist(), worse[near].tolist(), strict=True):  # the best first
        if kept[i]:
            kept[j] = False
    return graph.only(kept)


def own_partner(hit: np.ndarray, greedy: bool = False) -> np.ndarray:
    """(R,) bool: the proposals that have a reference relation of their own.

    Among the first k, for every k, there are as many as in a greatest one-to-one matching of these k: proposals are
    served in order, and those served move over where that makes room. `greedy`: nobody moves; each takes the first
    free relation in the order of the reference, as the published evaluator has it.
    """
    owns = np.zeros(len(hit), dtype=bool)
    if not hit.size:
        return owns
    several = hit.sum(axis=1) > 1
    if not several.any():  # then each relation goes to the first who hits it, and there is no choice
        owns[hit.argmax(axis=0)[hit.any(axis=0)]] = True
        return owns
    owner: dict[int, int] = {}
    held: dict[int, int] = {}
    for row in np.flatnonzero(hit.any(axis=1)).tolist():
        came_from: dict[int, int] = {}  # relation -> the proposal that asks for it
        asking, free = [row], None
        while asking and free is None:
            asker = asking.pop()
            for column in np.flatnonzero(hit[asker]).tolist():
                if column not in came_from:
                    came_from[column] = asker
                    if column not in owner:
                        free = column
                        break
                    if not greedy:
                        asking.append(owner[column])
        owns[row] = free is not None
        while free is not None:  # everyone along the path moves over
            asker = came_from[free]
            owner[free] = asker
            held[asker], free = free, held.get(asker)
    return owns


class Counts:
    """Sums over frames: a few small arrays, however many frames there are.

    Attributes:
        ks, vocabulary: what is counted, for which predicates.
        images, failures, images_without_relations, images_left_out: see `compute`.
    """

    def __init__(self, ks: Sequence[int], vocabulary: Vocabulary):
        if not ks or not all(isinstance(k, int) and k > 0 for k in ks):
            raise SgrlError(f"ks must be positive whole numbers, found {ks!r}")
        self.ks = tuple(sorted(set(ks)))
        self.vocabulary = vocabulary
        shape = len(self.ks), len(vocabulary.predicates)
        self.images = self.failures = self.images_without_relations = self.images_left_out = 0
        self._in_means = self._with_relations = 0  # frames that are averaged over, and those that have relations
        self._sums = Sums(3, shape[0])  # recall, precision, F1
        self._right = np.zeros(shape[0], dtype=np.int64)
        self._predicted = np.zeros(shape[0], dtype=np.int64)
        self._found = np.zeros(shape, dtype=np.int64)
        self._recalls = Sums(*shape)  # of each predicate, over the frames that have it
        self._relations = np.zeros(shape[1], dtype=np.int64)
        self._frames = np.zeros(shape[1], dtype=np.int64)

    def count(
        self, truth: np.ndarray, hit: np.ndarray, owns: np.ndarray, failure: bool, left_out: bool
    ) -> dict[str, Any]:
        """Count one frame and return its own values.

        Args:
            truth: (G,) the predicates of the reference.
            hit, owns: (R, G), (R,), see `hits` and `own_partner`; R is at most the greatest K.
            failure: the prediction holds no graph.
            left_out: the frame is in no mean.
        """
        wanted, proposed = len(truth), len(owns)
        first = np.full(wanted, self.ks[-1])
        if proposed and wanted:
            first = np.where(hit.any(axis=0), hit.argmax(axis=0), first)
        ks = np.array(self.ks)
        covered = first < ks[:, None]  # (K, G)
        predicted = np.minimum(ks, proposed)
        right = np.concatenate([[0], owns.cumsum()])[predicted]
        coverage = covered.sum(axis=1)
        recall = coverage / wanted if wanted else np.zeros(len(ks))
        precision = right / np.maximum(1, predicted)
        f1 = 2 * right / np.maximum(1, predicted + wanted)
        if not wanted and not proposed and not failure:
            recall, precision, f1 = np.ones((3, len(ks)))

        self.images += 1
        self.failures += failure
        self.images_without_relations += not wanted
        self.images_left_out += left_out
        if not left_out:
            self._in_means += 1
            self._with_relations += wanted > 0
            self._sums.add((recall if wanted else np.zeros_like(recall), precision, f1))
            self._right += right
            self._predicted += predicted
            number = self._found.shape[1]
            relations = np.bincount(truth, minlength=number)
            found = np.stack([np.bincount(truth[row], minlength=number) for row in covered])
            self._found += found
            self._recalls.add(found / np.maximum(1, relations))
            self._relations += relations
            self._frames += relations > 0
        values = {"failure": int(failure), "relations_predicted": proposed, "relations_reference": wanted}
        named = {"found": coverage, "right": right, "predicted": predicted}
        named |= {"recall": recall, "precision": precision, "f1": f1}
        for name, numbers in named.items():
            values |= {f"{name}@{k}": x for k, x in zip(self.ks, numbers.tolist(), strict=True)}
        return values

    def merge(self, other: Counts) -> None:
        """Add what another has counted."""
        for name, value in vars(other).items():
            if name not in ("ks", "vocabulary"):
                setattr(self, name, getattr(self, name) + value)

    def compute(self) -> dict[str, float]:
        """See ActionGenomeRecall.compute."""
        recall, precision, f1 = self._sums.total() / np.maximum(
            1, [[self._with_relations], [self._in_means], [self._in_means]]
        )
        total = int(self._relations.sum())
        pooled_found = self._found.sum(axis=1)
        values = {
            "recall": recall,
            "precision": precision,
            "f1": f1,
            "mean_recall": (self._recalls.total() / np.maximum(1, self._frames)).mean(axis=1),
            "pooled_recall": pooled_found / max(1, total),
            "pooled_precision": self._right / np.maximum(1, self._predicted),
            "pooled_f1": 2 * self._right / np.maximum(1, self._predicted + total),
            "pooled_mean_recall": (self._found / np.maximum(1, self._relations)).mean(axis=1),
        }
        found: dict[str, float] = {
            "images": self.images,
            "failures": self.failures,
            "failure_rate": self.failures / max(1, self.images),
            "images_without_relations": self.images_without_relations,
            "images_left_out": self.images_left_out,
            "relations_reference": total,
            "predicates": len(self._relations),
            "predicates_absent": int((self._relations == 0).sum()),
        }
        for name, numbers in values.items():
            found |= {f"{name}@{k}": x for k, x in zip(self.ks, numbers.tolist(), strict=True)}
        return found

    def per_predicate(self) -> dict[str, dict[str, float]]:
        """See ActionGenomeRecall.per_predicate."""
        shares = self._recalls.total() / np.maximum(1, self._frames)
        pooled = self._found / np.maximum(1, self._relations)
        table = {}
        for i, predicate in enumerate(self.vocabulary.predicates):
            row: dict[str, float] = {"images": int(self._frames[i]), "relations": int(self._relations[i])}
            for name, numbers in (("found", self._found), ("recall", shares), ("pooled_recall", pooled)):
                row |= {f"{name}@{k}": x for k, x in zip(self.ks, numbers[:, i].tolist(), strict=True)}
            table[predicate] = row
        return table
