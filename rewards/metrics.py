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

import numpy as np

from rewards.matching import assign, in_order
from rewards.r1_sgg import normalised
from rewards.scorer import read_reference, text_of
from sgrl.boxes import iou
from sgrl.errors import SgrlError, suggest
from sgrl.text import Codec, ParsedGraph, answer, get_codec

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
        """Count one prediction (any text, or None) and return its own values.

        Args:
            reference: text of the reference graph, or a SceneGraph.
            width, height: frame of this image's boxes, if it differs from the one given at the start.

        Returns: the values that `compute` averages, the counts that it pools, and failure (1.0 or 0.0) and matched_iou
            (mean IoU of the pairs that reach the threshold, 0 without any).

        Raises:
            FormatError: the reference is malformed; the sample is not counted.
        """
        graph, truth = self._read(prediction, reference, width, height)
        if graph is None:
            counts = (0, 0, len(truth.labels), 0, 0, len(truth.relations))
            values = dict.fromkeys(VALUES, 0.0) | {"failure": 1.0, "matched_iou": 0.0}
            values |= zip(COUNTS, counts, strict=True)
        else:
            values = self._compare(graph, truth) | {"failure": 0.0}
        self.samples += 1
        self.failures += graph is None
        for name in VALUES:
            self._sums[name] += values[name]
        for name in COUNTS:
            self._counts[name] += values[name]
        return values

    def matches(
        self, prediction, reference, width: int | None = None, height: int | None = None
    ) -> dict[str, list[tuple[int, int]]]:
        """Which objects and relations of a prediction `add` counts as right, and for which of the reference.

        Arguments and errors as in `add`; counts nothing. Returns "objects" and "relations", each a list of (position
        in what `codec.recover_parsed` reads, position in the reference as written); both empty for a failure.

        >>> metrics = SceneGraphMetrics("toon", width=640, height=480)
        >>> graph = "obj[1]{id,name,x1,y1,x2,y2}:\\n  1,cat,10,10,50,50\\nrel[0]{subj,pred,obj}:"
        >>> metrics.matches(f"<answer>\\n{graph}\\n</answer>", graph)
        {'objects': [(0, 0)], 'relations': []}
        """
        graph, truth = self._read(prediction, reference, width, height)
        if graph is None:
            return {"objects": [], "relations": []}
        objects, relations, _ = self._match(graph, truth)
        return {"objects": objects, "relations": relations}

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

    def _read(self, prediction, reference, width, height) -> tuple[ParsedGraph | None, ParsedGraph]:
        """The predicted graph, None for a failure, and the reference."""
        size = width or self.width, height or self.height
        truth = read_reference(reference, self.codec, *size)
        text = text_of(prediction)
        graph, _ = self.codec.recover_parsed(text, *size)
        if not graph.labels or (self.protocol == "published" and not self._both_headers(text)):
            return None, truth
        return graph, truth

    def _both_headers(self, text: str) -> bool:
        """Whether a relation header follows an object header in the answer that is read."""
        body = answer.lenient(text, "obj[")
        head = _OBJECT_HEADER.search(body)
        return bool(head and _RELATION_HEADER[self.codec.grouped].search(body, head.end()))

    def _align(self, graph: ParsedGraph, truth: ParsedGraph) -> tuple[list[tuple[int, int]], list[bool], np.ndarray]:
        """The pairs of boxes that reach the threshold, as (position in `graph`, position in `truth`); whether their
        labels are equal; and their IoU."""
        (said, boxes, _), order = in_order(graph)
        (wanted, true_boxes, _), true_order = in_order(truth)
        said, wanted = [list(map(normalised, labels)) for labels in (said, wanted)]
        equal = np.array([[label == other for other in wanted] for label in said]).reshape(len(said), len(wanted))
        overlap = iou(boxes, true_boxes)
        rows, columns = assign(-(overlap + TIE * equal))
        kept = overlap[rows, columns] >= self.iou_threshold
        rows, columns = rows[kept], columns[kept]
        pairs = [(order[i], true_order[j]) for i, j in zip(rows.tolist(), columns.tolist(), strict=True)]
        return pairs, equal[rows, columns].tolist(), overlap[rows, columns]

    def _match(self, graph: ParsedGraph, truth: ParsedGraph) -> tuple[list, list, np.ndarray]:
        """Right objects and relations as pairs (position in `graph`, position in `truth`), and the IoU of all pairs of
        boxes that reach the threshold."""
        pairs, equal, overlaps = self._align(graph, truth)
        objects = [pair for pair, right in zip(pairs, equal, strict=True) if right]

        partner = dict(pairs)
        free: dict[tuple, list[int]] = {}
        for j, (subject, predicate, target) in enumerate(truth.relations):
            free.setdefault((subject, normalised(predicate), target), []).append(j)
        relations = []
        for i, (subject, predicate, target) in enumerate(graph.relations):
            # an object without a partner, or one that does not exist, is nobody in the reference
            same = free.get((partner.get(subject), normalised(predicate), partner.get(target)))
            if same:
                relations.append((i, same.pop(0)))
        return sorted(objects), relations, overlaps

    def _compare(self, graph: ParsedGraph, truth: ParsedGraph) -> dict[str, float]:
        right_objects, right_relations, overlaps = self._match(graph, truth)
        both_empty = 0.0 if self.protocol == "published" else 1.0
        counts = (
            *(len(right_objects), len(graph.labels), len(truth.labels)),
            *(len(right_relations), len(graph.relations), len(truth.relations)),
        )
        objects = _precision_recall_f1(*counts[:3], both_empty)
        relations = _precision_recall_f1(*counts[3:], both_empty)
        values = dict(zip(VALUES, (*objects, *relations, (objects[2] + relations[2]) / 2), strict=True))
        values |= zip(COUNTS, counts, strict=True)
        values["matched_iou"] = float(overlaps.mean()) if len(overlaps) else 0.0
        return values


def _precision_recall_f1(right: int, predicted: int, wanted: int, both_empty: float) -> tuple[float, float, float]:
    if not predicted and not wanted:
        return both_empty, both_empty, both_empty
    return (
        right / predicted if predicted else 0.0,
        right / wanted if wanted else 0.0,
        2.0 * right / (predicted + wanted),
    )
