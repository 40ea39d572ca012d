"""Precision, recall and F1 of objects and relations: the strict metric of SceneGraphVLM's evaluation.

Unlike the reward, the metric reads a prediction leniently (a wrong count or a missing tag does not make a graph wrong)
and matches objects by their boxes alone. With N reference objects and M predicted ones:

* The Hungarian assignment of greatest total IoU pairs objects; pairs under the threshold are dropped. Pairs of equal
  label are right: precision = right / M, recall = right / N.
* A predicted relation is right if the assignment carries its subject and object to those of a reference relation with
  an equal predicate, each reference relation counting once. Object labels play no part in it.
* Labels are compared in lower case with `_` and `-` as blanks.
* F1 is 0 where precision and recall are, sgg_score = (object F1 + relation F1) / 2, and what is reported is the mean
  over samples. A prediction without a single object is a failure and counts as zero everywhere.
* Beside the means stand the figures of all samples pooled: right / predicted and right / reference with each of the
  three summed. The mean scores an image without a predicted relation as precision 0, so a model that leaves out a
  doubtful relation can lose precision there; pooled precision is the chance that a relation it says is right.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from rewards.r1_sgg import normalised
from rewards.scorer import read_reference, text_of
from sgrl.boxes import iou
from sgrl.errors import SgrlError, suggest
from sgrl.text import Codec, FormatError, ParsedGraph, answer, get_codec

PROTOCOLS = ("default", "published")
VALUES = (
    "object_precision",
    "object_recall",
    "object_f1",
    "relation_precision",
    "relation_recall",
    "relation_f1",
    "sgg_score",
)
KINDS = ("object", "relation")
COUNTS = tuple(f"{kind}s_{count}" for kind in KINDS for count in ("right", "predicted", "reference"))

TIE = 1e-6
"""What an equal label adds to the IoU of a pair, so that identical boxes are not paired arbitrarily."""

_OBJECT_HEADER = re.compile(r"obj\[[0-9]*+\]\{[^{}\n]*+\}:", re.IGNORECASE)
_RELATION_HEADER = {
    False: re.compile(r"\n[ \t]*+rel\[[0-9]*+\]\{[^{}\n]*+\}:", re.IGNORECASE),
    True: re.compile(r"\n[ \t]*+rel_pairs\[[0-9]*+\]\{[^{}\n]*+\}:", re.IGNORECASE),
}


_NAMES = (*VALUES, "failure", "matched_iou", *COUNTS)
_ZEROS = dict.fromkeys(_NAMES, 0.0) | {"failure": 1.0}
_normalised = lru_cache(maxsize=8192)(normalised)  # labels are at most sgrl.text.labels.MAX_LABEL long


class Comparison(NamedTuple):
    """One prediction beside its reference.

    Attributes:
        values: those in VALUES (what `compute` averages) and in COUNTS (what it pools), failure (1.0 or 0.0), and
            matched_iou (mean IoU of the pairs that reach the threshold, 0 without any).
        matched: "objects" and "relations" that are right, each a list of (position in `graph`, position in `truth`);
            both empty for a failure.
        graph: what was read, as `codec.recover_parsed` does; None for a failure.
        truth: the reference, objects and relations as written.
        error: why the text is not a valid answer; None if it is one.
    """

    values: dict[str, float]
    matched: dict[str, list[tuple[int, int]]]
    graph: ParsedGraph | None
    truth: ParsedGraph
    error: FormatError | None


class SceneGraphMetrics:
    """Means and pooled figures of a stream of predictions; memory does not grow with their number.

    Args:
        codec, width, height: as in GraphScorer; `add` takes other sizes too.
        iou_threshold: least IoU of a pair, in [0, 1].
        protocol: "default", or "published" to reproduce the numbers of the published evaluator: relations absent from
            both graphs count as 0 instead of 1, and objects whose relation header is missing or misplaced are lost.

    >>> metrics = SceneGraphMetrics("toon", width=640, height=480)
    >>> graph = "obj[1]{id,name,x1,y1,x2,y2}:\\n  1,cat,10,10,50,50\\nrel[0]{subj,pred,obj}:"
    >>> metrics.add(f"<answer>\\n{graph}\\n</answer>", graph)["object_f1"]
    1.0
    >>> metrics.add("no graph", graph)["object_f1"]
    0.0
    >>> metrics.compute()["object_f1"], metrics.compute()["failure_rate"]
    (0.5, 0.5)
    """

    def __init__(
        self,
        codec: str | Codec,
        width: int,
        height: int,
        *,
        iou_threshold: float = 0.5,
        protocol: str = "default",
    ):
        if protocol not in PROTOCOLS:
            raise SgrlError(f"unknown protocol {protocol!r}{suggest(protocol, PROTOCOLS)}")
        if not 0 <= iou_threshold <= 1:
            raise SgrlError(f"iou_threshold must lie in [0, 1], found {iou_threshold!r}")
        self.codec = get_codec(codec)
        self.width, self.height = width, height
        self.iou_threshold = iou_threshold
        self.protocol = protocol
        self.samples = 0
        self.failures = 0
        self._sums = dict.fromkeys(VALUES, 0.0)
        self._counts = dict.fromkeys(COUNTS, 0)

    def add(self, prediction, reference, width: int | None = None, height: int | None = None) -> dict[str, float]:
        """Count one prediction (any text, or None) and return its own values (see `Comparison`).

        Args:
            reference: text of the reference graph, a SceneGraph, or a ParsedGraph.
            width, height: frame of this image's boxes, if it differs from the one given at the start.

        Raises:
            FormatError: the reference is malformed; the sample is not counted.
        """
        return self.count(self.compare(prediction, reference, width, height)).values

    def count(self, compared: Comparison) -> Comparison:
        """Count what `compare` found."""
        values = compared.values
        self.samples += 1
        self.failures += compared.graph is None
        for name in VALUES:
            self._sums[name] += values[name]
        for name in COUNTS:
            self._counts[name] += values[name]
        return compared

    def compare(self, prediction, reference, width: int | None = None, height: int | None = None) -> Comparison:
        """One prediction beside its reference, without counting it; arguments and errors as in `add`.

        >>> metrics = SceneGraphMetrics("toon", width=640, height=480)
        >>> graph = "obj[1]{id,name,x1,y1,x2,y2}:\\n  1,cat,10,10,50,50\\nrel[0]{subj,pred,obj}:"
        >>> metrics.compare(f"<answer>\\n{graph}\\n</answer>", graph).matched
        {'objects': [(0, 0)], 'relations': []}
        """
        graph, truth, error = self._read(prediction, reference, width, height)
        if graph is None:
            counts = (0, 0, len(truth.labels), 0, 0, len(truth.relations))
            values = _ZEROS | dict(zip(COUNTS, counts, strict=True))
            return Comparison(values, {"objects": [], "relations": []}, None, truth, error)
        objects, relations, overlaps = self._match(graph, truth)
        counts = (
            *(len(objects), len(graph.labels), len(truth.labels)),
            *(len(relations), len(graph.relations), len(truth.relations)),
        )
        both_empty = 0.0 if self.protocol == "published" else 1.0
        of_objects = _precision_recall_f1(*counts[:3], both_empty)
        of_relations = _precision_recall_f1(*counts[3:], both_empty)
        sgg_score = (of_objects[2] + of_relations[2]) / 2
        matched_iou = sum(overlaps) / len(overlaps) if overlaps else 0.0
        values = dict(zip(_NAMES, (*of_objects, *of_relations, sgg_score, 0.0, matched_iou, *counts), strict=True))
        return Comparison(values, {"objects": objects, "relations": relations}, graph, truth, error)

    def matches(self, prediction, reference, width: int | None = None, height: int | None = None) -> dict:
        """`compare(...).matched`."""
        return self.compare(prediction, reference, width, height).matched

    def compute(self) -> dict[str, float]:
        """Means over all samples so far, failures included, besides samples, failures and failure_rate.

        And pooled_object_precision, pooled_object_recall, pooled_object_f1 and the same of relations, from the sums of
        right, predicted and reference ones. All 0 before the first sample.
        """
        n = max(1, self.samples)
        found = {"samples": self.samples, "failures": self.failures, "failure_rate": self.failures / n}
        found |= {name: total / n for name, total in self._sums.items()}
        for kind in KINDS:
            counts = (self._counts[f"{kind}s_{count}"] for count in ("right", "predicted", "reference"))
            values = _precision_recall_f1(*counts, both_empty=0.0)
            names = (f"pooled_{kind}_{name}" for name in ("precision", "recall", "f1"))
            found |= zip(names, values, strict=True)
        return found

    def _read(
        self, prediction, reference, width: int | None, height: int | None
    ) -> tuple[ParsedGraph | None, ParsedGraph, FormatError | None]:
        """The predicted graph, None for a failure; the reference; and why the prediction is no valid answer, if so.

        What the strict reader takes, the lenient one reads alike, in three times as long.
        """
        size = width or self.width, height or self.height
        truth = reference if isinstance(reference, ParsedGraph) else read_reference(reference, self.codec, *size)
        text = text_of(prediction)
        try:
            graph, error = self.codec.parse(text, *size), None
            failed = not graph.labels
        except FormatError as found:
            graph, error = self.codec.recover_parsed(text, *size)[0], found
            failed = not graph.labels or (self.protocol == "published" and not self._both_headers(text))
        return None if failed else graph, truth, error

    def _both_headers(self, text: str) -> bool:
        """Whether a relation header follows an object header in the answer that is read."""
        body = answer.lenient(text, "obj[")
        head = _OBJECT_HEADER.search(body)
        return bool(head and _RELATION_HEADER[self.codec.grouped].search(body, head.end()))

    def _align(self, graph: ParsedGraph, truth: ParsedGraph) -> tuple[list[tuple[int, int]], list[bool], list[float]]:
        """The pairs of boxes that reach the threshold, as (position in `graph`, position in `truth`); whether their
        labels are equal; and their IoU."""
        order, boxes, said = _in_order(graph)
        true_order, true_boxes, wanted = _in_order(truth)
        number = {label: i for i, label in enumerate(wanted)}.get  # of equal labels they all get the last one's
        said, wanted = [number(label, -1) for label in said], [number(label) for label in wanted]
        overlap = iou(boxes, true_boxes)
        gain = TIE * (np.array(said)[:, None] == np.array(wanted))
        gain += overlap
        rows, columns = linear_sum_assignment(gain, maximize=True)
        pairs, equal, overlaps = [], [], []
        for row, column, value in zip(rows.tolist(), columns.tolist(), overlap[rows, columns].tolist(), strict=True):
            if value >= self.iou_threshold:
                pairs.append((order[row], true_order[column]))
                equal.append(said[row] == wanted[column])
                overlaps.append(value)
        return pairs, equal, overlaps

    def _match(self, graph: ParsedGraph, truth: ParsedGraph) -> tuple[list, list, list[float]]:
        """Right objects and relations as pairs (position in `graph`, position in `truth`), and the IoU of all pairs of
        boxes that reach the threshold."""
        pairs, equal, overlaps = self._align(graph, truth)
        objects = sorted([pair for pair, right in zip(pairs, equal, strict=True) if right])
        partner = dict(pairs)
        free: dict[tuple, list[int]] = {}
        for j, (subject, predicate, target) in enumerate(truth.relations):
            free.setdefault((subject, _normalised(predicate), target), []).append(j)
        relations = []
        for i, (subject, predicate, target) in enumerate(graph.relations):
            # an object without a partner, or one that does not exist, is nobody in the reference
            same = free.get((partner.get(subject), _normalised(predicate), partner.get(target)))
            if same:
                relations.append((i, same.pop(0)))
        return objects, relations, overlaps


def _in_order(graph: ParsedGraph) -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...], list[str]]:
    """Positions, boxes and labels to compare, sorted by box and label: see rewards.matching.in_order."""
    if not graph.labels:
        return (), (), []
    boxes, labels, order = zip(
        *sorted(zip(graph.boxes, graph.labels, range(len(graph.labels)), strict=True)), strict=True
    )
    return order, boxes, list(map(_normalised, labels))


def _precision_recall_f1(right: int, predicted: int, wanted: int, both_empty: float) -> tuple[float, float, float]:
    if not predicted and not wanted:
        return both_empty, both_empty, both_empty
    return (
        right / predicted if predicted else 0.0,
        right / wanted if wanted else 0.0,
        2.0 * right / (predicted + wanted),
    )
