"""Precision, recall and F1 of objects and relations: the strict metric of SceneGraphVLM's evaluation.

Unlike the reward, the metric reads a prediction leniently (a wrong count or a missing tag does not make a graph wrong)
and matches objects by their boxes alone. With N reference objects and M predicted ones:

* The Hungarian assignment of greatest total IoU pairs objects; pairs under the threshold are dropped. Pairs of equal
  label are right: precision = right / M, recall = right / N.
* A predicted relation is right if the assignment carries its subject and object to those of a reference relation with
  an equal predicate, each reference relation counting once. Object labels play no part in it.
* Labels are compared in lower case with `_` and `-` as blanks.
* F1 is 0 where precision and recall are, sgg_score = (object F1 + relation F1) / 2, and what is reported is the mean
  over samples. A prediction without a single object is a failure and counts as zero everywhere, unless it is a valid
  answer (JSON may say so) to a reference without objects.
* Beside the means stand the figures of all samples pooled: right / predicted and right / reference with each of the
  three summed. The mean scores an image without a predicted relation as precision 0, so a model that leaves out a
  doubtful relation can lose precision there; pooled precision is the chance that a relation it says is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from rewards.matching import LARGEST_BROADCAST, assign
from rewards.metrics.predicates import PredicateCounts
from rewards.metrics.protocol import Metric, Settings
from rewards.metrics.sums import Sums
from rewards.reading import PROTOCOLS, check_protocol, completion_of, graph_text, read_reference
from sgrl.boxes import iou, iou_of_pairs
from sgrl.errors import SgrlError
from sgrl.graph import SceneGraph
from sgrl.text import Codec, FormatError, ParsedGraph, answer, get_codec
from sgrl.vocabulary import normalised

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

LARGEST_SHARED = 400
"""Pairs of boxes of an image that is compared together with others."""

_NAMES = (*VALUES, "failure", "matched_iou", *COUNTS)
_SUMMED = (*VALUES, *COUNTS)
_summed = itemgetter(*_SUMMED)
_ZEROS = dict.fromkeys(_NAMES, 0.0) | {"failure": 1.0}


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


class Aligned(NamedTuple):
    """The pairs of boxes of a prediction and its reference that reach the threshold.

    pairs: (position in the prediction, position in the reference); equal: whether their labels are; overlaps: their
    IoU. partner: whom in the reference a relation's subject or object stands for.
    """

    pairs: list[tuple[int, int]]
    equal: list[bool]
    overlaps: list[float]
    partner: dict[int, int]


class Read(NamedTuple):
    """A prediction beside its reference: the predicted graph, None for a failure; the reference; why the prediction is
    no valid answer, if so; and of objects that share an id the first (see Codec.recover_published)."""

    graph: ParsedGraph | None
    truth: ParsedGraph
    error: FormatError | None
    namesakes: dict[int, int]


class SceneGraphMetrics(Metric):
    """Means and pooled figures of a stream of predictions; memory does not grow with their number.

    Args:
        codec, width, height: as in GraphScorer; `add` takes other sizes too.
        iou_threshold: least IoU of a pair, in [0, 1].
        protocol: "default", or "published" to reproduce the numbers of the published evaluator: relations absent from
            both graphs count as 0 instead of 1, and texts are read as it reads them (see sgrl.text.published).
        frequency: how often each predicate occurs in training; decides on head, body and tail in `per_predicate`.

    >>> metrics = SceneGraphMetrics("toon", width=640, height=480)
    >>> graph = "obj[1]{id,name,x1,y1,x2,y2}:\\n  1,cat,10,10,50,50\\nrel[0]{subj,pred,obj}:"
    >>> metrics.add(f"<answer>\\n{graph}\\n</answer>", graph)["object_f1"]
    1.0
    >>> metrics.add("no graph", graph)["object_f1"]
    0.0
    >>> metrics.compute()["object_f1"], metrics.compute()["failure_rate"]
    (0.5, 0.5)
    """

    name, protocols, matches = "strict", PROTOCOLS, True
    same: ClassVar[tuple[str, ...]] = ("codec", "iou_threshold", "protocol")

    def __init__(
        self,
        codec: str | Codec,
        width: int,
        height: int,
        *,
        iou_threshold: float = 0.5,
        protocol: str = "default",
        frequency: Mapping[str, int] | None = None,
    ):
        check_protocol(protocol)
        if not 0 <= iou_threshold <= 1:
            raise SgrlError(f"iou_threshold must lie in [0, 1], found {iou_threshold!r}")
        self.codec = get_codec(codec)
        self.width, self.height = width, height
        self.iou_threshold = iou_threshold
        self.protocol = protocol
        self.samples = 0
        self.failures = 0
        self.predicates = PredicateCounts(frequency)
        self._sums = Sums(len(_SUMMED))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.codec, 1, 1, protocol=settings.protocol, frequency=settings.frequency())

    def add(
        self, prediction: Any, reference: Any, width: int | None = None, height: int | None = None
    ) -> dict[str, float]:
        """Count one prediction and return its own values (see `Comparison`).

        Args:
            prediction: any text, None, or a graph: a SceneGraph, which is read as the codec writes it, a ParsedGraph,
                or a JSON object that has been parsed.
            reference: text of the reference graph, a SceneGraph, or a ParsedGraph.
            width, height: frame of this image's boxes, if it differs from the one given at the start.

        Raises:
            FormatError: the reference is malformed; the sample is not counted.
            CompletionError: the prediction is neither a text nor a graph.
        """
        return self.count(self.compare(prediction, reference, width, height)).values

    def count(self, compared: Comparison) -> Comparison:
        """Count what `compare` found."""
        self.samples += 1
        self.failures += compared.graph is None
        self._sums.add(_summed(compared.values))
        truth = compared.truth.relations
        said = () if compared.graph is None else compared.graph.relations
        self.predicates.add(
            [predicate for _, predicate, _ in truth],
            [predicate for _, predicate, _ in said],
            [truth[j][1] for _, j in compared.matched["relations"]],
        )
        return compared

    def merge(self, other: Self) -> None:
        self.check_same(other)
        self.samples += other.samples
        self.failures += other.failures
        self._sums += other._sums
        self.predicates.merge(other.predicates)

    def compare(
        self, prediction: Any, reference: Any, width: int | None = None, height: int | None = None
    ) -> Comparison:
        """One prediction beside its reference, without counting it; arguments and errors as in `add`.

        >>> metrics = SceneGraphMetrics("toon", width=640, height=480)
        >>> graph = "obj[1]{id,name,x1,y1,x2,y2}:\\n  1,cat,10,10,50,50\\nrel[0]{subj,pred,obj}:"
        >>> metrics.compare(f"<answer>\\n{graph}\\n</answer>", graph).matched
        {'objects': [(0, 0)], 'relations': []}
        """
        return self.compare_many([(prediction, reference, width, height)])[0]

    def compare_many(self, samples: Sequence[tuple[Any, ...]]) -> list[Comparison]:
        """`compare` of each sample (its arguments), in less time: the boxes of all are compared at once."""
        read = [self._read(*sample) for sample in samples]
        aligned = iter(self._align([found for found in read if found.graph is not None]))
        return [
            self._failed(found.truth, found.error)
            if found.graph is None
            else self._compared(found.graph, found.truth, found.error, next(aligned))
            for found in read
        ]

    def _failed(self, truth: ParsedGraph, error: FormatError | None) -> Comparison:
        counts = (0, 0, len(truth.labels), 0, 0, len(truth.relations))
        values = _ZEROS | dict(zip(COUNTS, counts, strict=True))
        return Comparison(values, {"objects": [], "relations": []}, None, truth, error)

    def _compared(
        self, graph: ParsedGraph, truth: ParsedGraph, error: FormatError | None, aligned: Aligned
    ) -> Comparison:
        objects, relations, overlaps = self._match(graph, truth, aligned)
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

    def compute(self) -> dict[str, float]:
        """Means over all samples so far, failures included, besides samples, failures and failure_rate.

        And pooled_object_precision, pooled_object_recall, pooled_object_f1 and the same of relations, from the sums of
        right, predicted and reference ones. All 0 before the first sample.
        """
        n = max(1, self.samples)
        found = {"samples": self.samples, "failures": self.failures, "failure_rate": self.failures / n}
        totals = dict(zip(_SUMMED, self._sums.total().tolist(), strict=True))
        found |= {name: totals[name] / n for name in VALUES}
        for kind in KINDS:
            right, predicted, wanted = (totals[f"{kind}s_{count}"] for count in ("right", "predicted", "reference"))
            values = _precision_recall_f1(right, predicted, wanted, both_empty=0.0)
            names = (f"pooled_{kind}_{name}" for name in ("precision", "recall", "f1"))
            found |= zip(names, values, strict=True)
        return found

    def per_predicate(self) -> dict[str, dict[str, Any]]:
        """For each predicate of the references, and each of training that was predicted: reference, predicted, right,
        precision, recall, f1, and group (head, body or tail)."""
        return {row.pop("predicate"): row for row in self.predicates.rows()}

    def _read(self, prediction: Any, reference: Any, width: int | None = None, height: int | None = None) -> Read:
        """What the strict reader takes, the lenient one reads alike, in three times as long."""
        size = width or self.width, height or self.height
        truth = reference if isinstance(reference, ParsedGraph) else read_reference(reference, self.codec, *size)
        graph, error = prediction, None
        namesakes: dict[int, int] = {}
        if type(prediction) is not str:
            graph = completion_of(prediction, self.codec, *size)
            if isinstance(graph, SceneGraph):
                graph = answer.wrap(graph_text(graph, self.codec, *size))
        if isinstance(graph, str):
            text = graph
            try:
                graph = self.codec.parse(text, *size)
            except FormatError as found:
                error = found
            if self.protocol == "published" and (error is not None or "</think>" in text):
                graph, namesakes = self.codec.recover_published(text)
            elif error is not None:
                graph = self.codec.recover_parsed(text, *size)[0]
            if error is not None and not graph.labels:
                error = self._why(text, size, error)
        # a valid graph without objects is right where there are none
        needed = error is not None or bool(truth.labels) or self.protocol == "published"
        failed = needed and not graph.labels
        return Read(None if failed else graph, truth, error, namesakes)

    def _why(self, text: str, size: tuple[int, int], error: FormatError) -> FormatError:
        """Why a text holds no graph: what is wrong with the graph's own text, if there is one, not with its tags."""
        body = self.codec.body_of(text).strip()
        try:
            if "{" in body or "[" in body:
                self.codec.parse(body, *size, tags=False)
        except FormatError as found:
            return found
        return error

    def _align(self, graphs: Sequence[Read]) -> Iterator[Aligned]:
        """The pairs of boxes of each prediction that is no failure."""
        start = size = 0
        for i, found in enumerate(graphs):
            pairs = len(found.graph.labels) * len(found.truth.labels) if found.graph else 0
            # calls are what small graphs cost, and they share them; large ones are faster by themselves
            if i > start and (pairs > LARGEST_SHARED or size + pairs > LARGEST_BROADCAST):
                yield from self._align_block(graphs[start:i])
                start, size = i, 0
            size = size + pairs if pairs <= LARGEST_SHARED else LARGEST_BROADCAST
        if graphs:
            yield from self._align_block(graphs[start:])

    def _align_block(self, graphs: Sequence[Read]) -> Iterator[Aligned]:
        said, wanted = _Stack(), _Stack()
        for found in graphs:
            assert found.graph is not None  # a failure has no pairs
            said.add(found.graph)
            wanted.add(found.truth)
        number: dict[str, int] = {}
        for label in wanted.labels:
            number.setdefault(label, len(number))
        get = number.get
        said_ids = np.array([get(label, -1) for label in said.labels])
        wanted_ids = np.array([number[label] for label in wanted.labels])
        if len(graphs) == 1:
            same = (said_ids[:, None] == wanted_ids).ravel()
            overlap = iou(said.boxes, wanted.boxes).ravel()
        else:  # all pairs of the first image, row by row, then all of the second one, and so on
            columns = np.repeat(wanted.sizes, said.sizes)
            row = np.repeat(np.arange(len(said.labels)), columns)
            first = np.repeat(np.cumsum([0, *wanted.sizes[:-1]]), said.sizes)  # a prediction's first reference object
            column = np.arange(len(row)) + np.repeat(first - (np.cumsum(columns) - columns), columns)
            same = said_ids[row] == wanted_ids[column]
            overlap = iou_of_pairs(said.boxes, wanted.boxes, row, column)
        gain = TIE * same
        gain += overlap

        start = i0 = j0 = 0
        for found, n, m in zip(graphs, said.sizes, wanted.sizes, strict=True):
            pairs, equal, overlaps = [], [], []
            rows, columns = assign(gain[start : start + n * m].reshape(n, m), maximize=True)
            places = start + rows * m + columns
            chosen = (rows.tolist(), columns.tolist(), overlap[places].tolist(), same[places].tolist())
            for i, j, value, right in zip(*chosen, strict=True):
                if value >= self.iou_threshold:
                    pairs.append((said.order[i0 + i], wanted.order[j0 + j]))
                    equal.append(right)
                    overlaps.append(value)
            yield Aligned(pairs, equal, overlaps, _partners(pairs, found.namesakes))
            start, i0, j0 = start + n * m, i0 + n, j0 + m

    def _match(
        self, graph: ParsedGraph, truth: ParsedGraph, aligned: Aligned
    ) -> tuple[list[Any], list[Any], list[float]]:
        """Right objects and relations as pairs (position in `graph`, position in `truth`), and the IoU of all pairs of
        boxes that reach the threshold."""
        pairs, equal, overlaps, partner = aligned
        objects = sorted([pair for pair, right in zip(pairs, equal, strict=True) if right])
        free: dict[tuple[Any, ...], list[int]] = {}
        for j, (subject, predicate, target) in enumerate(truth.relations):
            free.setdefault((subject, normalised(predicate), target), []).append(j)
        relations = []
        for i, (subject, predicate, target) in enumerate(graph.relations):
            # an object without a partner, or one that does not exist, is nobody in the reference
            same = free.get((partner.get(subject), normalised(predicate), partner.get(target)))
            if same:
                relations.append((i, same.pop(0)))
        return objects, relations, overlaps


class _Stack:
    """The objects of several graphs, each graph's sorted by box and label (see rewards.matching.in_order)."""

    def __init__(self) -> None:
        self.boxes: list[tuple[float, ...]] = []
        self.labels: list[str] = []  # to compare
        self.order: list[int] = []  # positions in their graph
        self.sizes: list[int] = []

    def add(self, graph: ParsedGraph) -> None:
        self.sizes.append(len(graph.labels))
        if graph.labels:
            rows = sorted(zip(graph.boxes, graph.labels, range(len(graph.labels)), strict=True))
            boxes, labels, order = zip(*rows, strict=True)
            self.boxes += boxes
            self.labels += map(normalised, labels)
            self.order += order


def _partners(pairs: list[tuple[int, int]], namesakes: dict[int, int]) -> dict[int, int]:
    """Whom in the reference a predicted object stands for. Objects of one id all stand for the last partner of any, as
    the published evaluator counts."""
    if not namesakes:
        return dict(pairs)
    return {namesakes.get(i, i): j for i, j in sorted(pairs, key=lambda pair: pair[1])}


def _precision_recall_f1(right: int, predicted: int, wanted: int, both_empty: float) -> tuple[float, float, float]:
    if not predicted and not wanted:
        return both_empty, both_empty, both_empty
    return (
        right / predicted if predicted else 0.0,
        right / wanted if wanted else 0.0,
        2.0 * right / (predicted + wanted),
    )
