"""Recall@K, Precision@K, F1@K and mean recall of Action Genome, of detectors' scores and of written graphs.

A frame has a person, objects, and relations from the person to an object in three groups: attention, spatial and
contacting. A model proposes such relations, best first; a constraint says which of them enter the ranking:

* "with": of each pair of objects, the best predicate of each group, so at most three.
* "semi": of each pair, the best attention predicate, and every spatial and contacting one whose own probability is
  greater than 0.9 (STTran).
* "no": every predicate.

A proposal hits a reference relation where predicate and both classes are equal and both boxes reach the IoU threshold.

* recall@K: of the reference relations, those that one of the K best proposals hits; one proposal may hit several.
* precision@K: of the (at most) K best proposals, those with a reference relation of their own: the greatest one-to-one
  matching. f1@K: twice those / (proposals + reference relations). It is not the F1 of precision@K and recall@K.
* mean_recall@K: for each predicate its recall averaged over the frames that have it, then the mean over all
  predicates; pooled_mean_recall@K: for each predicate hits / relations over all frames, then the mean. Both are
  published as mean recall (OED has both, STTran neither, SceneGraphVLM the second); in both a predicate that no
  reference has counts as 0.
* pooled_recall@K, pooled_precision@K, pooled_f1@K: all frames in one sum.

SGDET, SGCLS and PredCLS differ in what the model is given: nothing, the reference boxes, or boxes and classes. A
detector's scores come with the boxes and classes of their task. For graphs there is `task`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from rewards.metrics import action_genome_published as published
from rewards.metrics.action_genome_counts import TASKS, Counts, Triplets, aligned, hits, own_partner, suppressed
from rewards.metrics.protocol import Metric, Option, Settings, check_choice
from rewards.metrics.ranking import (
    SCORED,
    PairScores,
    Ranked,
    of_scores,
    ranked,
)
from rewards.metrics.recall import SceneGraphRecall
from rewards.metrics.sttran import sttran_frames as sttran_frames
from rewards.reading import CompletionError, check_reference, completion_of, is_graph, read_reference, text_of
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.graph import SceneGraph
from sgrl.scores import ScoredGraph
from sgrl.text import Codec, ParsedGraph, get_codec
from sgrl.text.parsed import GROUPS
from sgrl.vocabulary import Vocabulary, get_vocabulary

CONSTRAINTS = ("with", "no", "semi")
PROTOCOLS = ("default", "published", "sttran", "oed", "oed-nms", "oed-published")
KS = (10, 20, 50, 100)
SEMI = 0.9
"""What the probability of a spatial or contacting predicate must exceed under the semi constraint."""

WITH_NMS = ("oed-nms", "oed-published")

NMS_PROPOSALS = 500
"""How many enter OED's non-maximum suppression."""


class ActionGenomeRecall(Metric):
    """The metrics of a stream of frames; memory does not grow with their number.

    Args:
        width, height: frame of the boxes in texts; `add` takes other sizes too. Not needed for graphs and scores.
        constraint: one of CONSTRAINTS.
        task: one of TASKS, for texts and graphs. With "sgcls" an object takes the box of the reference object that it
            overlaps with (one to one, greatest total IoU), with "predcls" its class too; what overlaps with none keeps
            its own.
        ks: the K.
        iou_threshold: least IoU of both boxes, in [0, 1].
        protocol: "default", or a published convention:
            "sttran": boxes are a pixel larger on both sides.
            "oed": boxes as by default; no semi constraint. "oed-nms": of proposals with the same classes and predicate
                and nearly the same boxes, the best stays, as OED means it for SGDET: boxes a pixel larger on both
                sides, whether they are in pixels or in [0, 1]. "oed-published": as OED's code does it, which takes the
                whole image for that pixel, because its boxes are in [0, 1]; its published figures are such.
            "published": texts as SceneGraphVLM's evaluator reads and ranks them, see `action_genome_published`.
            All of these leave frames without reference relations out of every mean (STTran and OED stop there with an
            error), "published" also predictions without a graph. By default a frame without reference relations is in
            no recall, but in precision and F1: 1 if nothing was proposed, else 0; and no graph is 0 everywhere.
        vocabulary: classes and predicates in three groups, Action Genome's unless given.
        codec: layout of texts, with groups.

    Raises:
        SgrlError: an argument that makes no sense.

    >>> counted = ActionGenomeRecall(640, 480)
    >>> graph = "obj[2]{id,name,x1,y1,x2,y2}:\\n 1,person,10,10,99,99\\n 2,cup/glass/bottle,50,50,80,80\\n"
    >>> graph += "rel_pairs[1]{subj,attention,spatial,contacting,obj}:\\n 1,unsure,in_front_of,holding|touching,2"
    >>> frame = counted.add(graph, graph)
    >>> frame["recall@10"], frame["precision@10"]  # one label of each group
    (0.75, 1.0)
    """

    name, protocols, ranks = "ag-recall", PROTOCOLS, True
    options = {
        "constraint": Option(CONSTRAINTS, "which relations enter the ranking"),
        "task": Option(TASKS, "what the model is given"),
    }
    same = ("constraint", "task", "protocol", "ks", "iou_threshold", "vocabulary", "codec")

    def __init__(
        self,
        width: int | None = None,
        height: int | None = None,
        constraint: str = "with",
        *,
        task: str = "sgdet",
        ks: Sequence[int] = KS,
        iou_threshold: float = 0.5,
        protocol: str = "default",
        vocabulary: Vocabulary | None = None,
        codec: str | Codec = "toon-pairs",
    ):
        check_choice("constraint", constraint, CONSTRAINTS)
        check_choice("task", task, TASKS)
        check_choice("protocol", protocol, PROTOCOLS)
        if not 0 <= iou_threshold <= 1:
            raise SgrlError(f"iou_threshold must lie in [0, 1], found {iou_threshold!r}")
        if constraint == "semi" and protocol not in ("default", "sttran"):
            raise UsageError(f"the protocol {protocol!r} has no semi constraint; choose 'with' or 'no', or 'sttran'")
        vocabulary = get_vocabulary("action_genome") if vocabulary is None else vocabulary
        if tuple(vocabulary.groups or ()) != GROUPS:
            raise SgrlError(f"vocabulary {vocabulary.name!r} must have the groups {', '.join(GROUPS)}")
        self.codec = get_codec(codec)
        if not self.codec.grouped:
            raise SgrlError(
                f"the layout {self.codec.name!r} has no groups of predicates; expected one like toon-pairs"
            )
        self.width, self.height = width, height
        self.constraint, self.task, self.protocol = constraint, task, protocol
        self.iou_threshold = iou_threshold
        self.vocabulary = vocabulary
        self._counts = Counts(ks, vocabulary)
        self.ks = self._counts.ks
        self._most = max(NMS_PROPOSALS, self.ks[-1]) if protocol in WITH_NMS else self.ks[-1]
        groups = vocabulary.groups or {}
        group_of = {label: i for i, labels in enumerate(groups.values()) for label in labels}
        # columns of each group; predicates may stand in any order
        self._groups = [
            np.array([i for i, label in enumerate(vocabulary.predicates) if group_of[label] == group])
            for group in range(len(GROUPS))
        ]
        self._object_ids = {
            text: i for i, label in enumerate(vocabulary.objects) for text in (label, vocabulary.to_text(label))
        }
        self._predicate_ids = {
            f"{GROUPS[group_of[label]]}__{text}": i
            for i, label in enumerate(vocabulary.predicates)
            for text in (label, vocabulary.to_text(label))
        }

    @classmethod
    def of(cls, settings: Settings) -> Self:
        if not settings.codec.grouped:
            raise UsageError(
                f"--metric {cls.name} is for layouts with groups, as Action Genome's toon-pairs; these texts are "
                f"{settings.codec.name!r}: use --metric {SceneGraphRecall.name}"
            )
        options: dict[str, Any] = {"vocabulary": settings.vocabulary, "protocol": settings.protocol}
        return cls(codec=settings.codec, **options, **dict[str, Any](settings.options))

    def add(
        self,
        prediction: Any,
        reference: Any,
        width: int | None = None,
        height: int | None = None,
        *,
        confidences: Sequence[float | None] | None = None,
    ) -> dict[str, float]:
        """Count one frame and return its own values.

        Args:
            prediction: any text or None; a SceneGraph (ranked by its relations' scores if it has any, else in order),
                a ParsedGraph or a Ranked; or PairScores, whose pairs are (person, object) and whose columns are the
                vocabulary's predicates; or a ScoredGraph (sgrl.scores).
            reference: text, SceneGraph or ParsedGraph. The person is the subject in every group.
            width, height: frame of this image's boxes in texts, if it differs from the one given at the start.
            confidences: of the relations that the codec's `recover_parsed` reads from the text; they rank them, and
                without them the order of writing does.

        Returns: failure (1 for a prediction without an object), relations_predicted (those in the ranking, at most the
            greatest K), relations_reference, and for every K found@K, right@K, predicted@K, recall@K, precision@K and
            f1@K; recall is 0 without reference relations unless nothing was proposed.

        Raises:
            FormatError, SgrlError: the reference is malformed, or arrays do not fit together; nothing is counted.
        """
        truth_graph = self._reference(reference, width, height)
        if self.protocol == "published":
            truth = published.reversed_spatial(self._known(truth_graph, "reference"), self._groups[1])
            proposed = self._published(prediction, truth, width, height)
        else:
            truth = self._known(truth_graph, "reference")
            proposed = self._proposed(prediction, truth_graph, confidences, width, height)
        failure = proposed is None
        if proposed is None:
            proposed = Triplets(np.zeros((0, 4)), *(np.zeros(0, dtype=np.int64) for _ in range(4)))
        if self.protocol in WITH_NMS:
            size = self._size(prediction, reference, width, height)
            proposed = suppressed(proposed.only(slice(self._most)), self._pixel(truth, size))
        proposed = proposed.only(slice(self.ks[-1]))
        hit = hits(proposed, truth, self.iou_threshold, pixel=float(self.protocol == "sttran"))
        owns = own_partner(hit, greedy=self.protocol == "published")
        left_out = self.protocol != "default" and not len(truth.predicates)
        left_out |= self.protocol == "published" and failure
        return self._counts.count(truth.predicates, hit, owns, failure, left_out)

    def found(
        self, prediction: Any, reference: Any, width: int | None = None, height: int | None = None
    ) -> list[tuple[str, bool]]:
        """The reference's relations of a frame, each with whether one of the K best proposals (the greatest K) hits
        it. Nothing is counted; arguments and errors are those of `add`."""
        graph = self._reference(reference, width, height)
        truth = self._known(graph, "reference")
        proposed = self._proposed(prediction, graph, None, width, height)
        found = [False] * len(truth.predicates)
        if proposed is not None:
            hit = hits(proposed.only(slice(self.ks[-1])), truth, self.iou_threshold)
            found = np.asarray(hit.any(axis=0)).tolist()
        return [(self.vocabulary.predicates[i], was) for i, was in zip(truth.predicates, found, strict=True)]

    def merge(self, other: Self) -> None:
        self.check_same(other)
        self._counts.merge(other._counts)

    def compute(self) -> dict[str, float]:
        """All figures so far; 0 where there is nothing to count yet.

        images, failures, failure_rate, images_without_relations (in no recall), images_left_out (of every mean, by the
        published protocols), relations_reference, predicates and predicates_absent (of the vocabulary, how many no
        reference has); then for every K recall@K, precision@K, f1@K, mean_recall@K, pooled_recall@K,
        pooled_precision@K, pooled_f1@K and pooled_mean_recall@K.
        """
        return self._counts.compute()

    def per_predicate(self) -> dict[str, dict[str, float]]:
        """For each predicate: images and relations that have it, and for every K found@K, recall@K (mean over the
        images that have it) and pooled_recall@K."""
        return self._counts.per_predicate()

    @classmethod
    def notes(cls, found: Mapping[str, Any]) -> list[str]:
        return SceneGraphRecall.notes(found)

    def _frame(self, width: int | None, height: int | None) -> tuple[int, int]:
        width, height = width or self.width, height or self.height
        if width is None or height is None:
            raise SgrlError("texts need width and height; found none, give them to ActionGenomeRecall")
        return width, height

    def _size(self, prediction: Any, reference: Any, width: int | None, height: int | None) -> tuple[int, int] | None:
        """Of the image in pixels; None where nobody says it."""
        sizes = ((width, height), (self.width, self.height), *(_size_of(x) for x in (reference, prediction)))
        for across, down in sizes:
            if across and down and (across, down) != (1, 1):  # boxes in [0, 1] live in an image of one pixel
                return across, down
        return None

    def _pixel(self, truth: Triplets, size: tuple[int, int] | None) -> tuple[float, float]:
        """Width and height that the suppression adds to boxes, in their own unit."""
        in_unit = len(truth.boxes) > 0 and truth.boxes.max() <= 1
        if self.protocol == "oed-published":
            if not in_unit and size is None:
                raise SgrlError("the protocol 'oed-published' needs width and height of images; found none")
            return (1.0, 1.0) if in_unit or size is None else size
        if not in_unit:
            return 1.0, 1.0
        return (1 / size[0], 1 / size[1]) if size else (0.0, 0.0)

    def _reference(self, reference: Any, width: int | None, height: int | None) -> Ranked:
        check_reference(reference)
        if not isinstance(reference, SceneGraph | ParsedGraph):
            reference = read_reference(reference, self.codec, *self._frame(width, height))
        return ranked(reference)

    def _known(self, graph: Ranked, what: str | None = None) -> Triplets:
        """The numbers of a graph's labels. With `what`, a label outside the vocabulary raises SgrlError."""
        labels = np.array([self._object_id(label) for label in graph.labels], dtype=np.int64)
        predicates = np.array([self._predicate_id(name) for name in graph.predicates], dtype=np.int64)
        for kind, ids, names in (("objects", labels, graph.labels), ("predicates", predicates, graph.predicates)):
            if what and len(ids) and ids.min() < 0:
                name = names[int(ids.argmin())]
                choices = suggest(name.rpartition("__")[2], getattr(self.vocabulary, kind))
                raise SgrlError(
                    f"malformed {what}: {name!r} is not among the {kind} of {self.vocabulary.name!r}{choices}"
                )
        return Triplets(graph.boxes, labels, graph.subjects, predicates, graph.objects)

    def _object_id(self, text: str) -> int:
        found = self._object_ids.get(text)
        return self._object_ids.get(self.vocabulary.from_text(text) or "", -1) if found is None else found

    def _predicate_id(self, name: str) -> int:
        found = self._predicate_ids.get(name)
        if found is None:
            group, _, text = name.partition("__")
            found = self._predicate_ids.get(f"{group}__{self.vocabulary.from_text(text)}", -1)
        return found

    def _published(self, prediction: Any, truth: Triplets, width: int | None, height: int | None) -> Triplets | None:
        if not isinstance(prediction, str | bytes | bytearray | dict | list | None):
            raise CompletionError(f"the protocol 'published' reads texts, found {type(prediction).__name__}")
        rules = published.Rules(self.constraint, self.task, self.vocabulary)
        return published.proposals(text_of(prediction), truth, *self._frame(width, height), rules)

    def _proposed(
        self,
        prediction: Any,
        truth: Ranked,
        confidences: Sequence[float | None] | None,
        width: int | None,
        height: int | None,
    ) -> Triplets | None:
        """The ranking under the constraint; None if there is no graph."""
        if isinstance(prediction, ScoredGraph):
            prediction, confidences = of_scores(prediction, self.vocabulary)
        if isinstance(prediction, PairScores):
            return self._of_scores(prediction)
        if not isinstance(prediction, Ranked):
            if not isinstance(prediction, SceneGraph | ParsedGraph):
                if not is_graph(prediction):
                    prediction = text_of(prediction, SCORED)
                width, height = self._frame(width, height)
                prediction = completion_of(prediction, self.codec, width, height)
                if isinstance(prediction, str):
                    prediction, _ = self.codec.recover_parsed(prediction, width, height)
            prediction = ranked(prediction, confidences)
        if not prediction.labels:
            return None
        if self.task != "sgdet":
            prediction = aligned(prediction, truth, classes=self.task == "predcls")
        known = self._known(prediction)
        if self.constraint == "no" or not len(known.predicates):
            return known
        return known.only(self._constrained(known, prediction))

    def _constrained(self, known: Triplets, graph: Ranked) -> np.ndarray:
        """Which of the ranked relations, with their groups, enter the ranking."""
        group = np.array(
            [GROUPS.index(g) if (g := name.partition("__")[0]) in GROUPS else -1 for name in graph.predicates]
        )
        number = len(known.labels)
        pair = (known.subjects * number + known.objects) * len(GROUPS) + group
        # what names no object or no group is no pair's second choice: each is a proposal of its own
        alone = (known.subjects < 0) | (known.objects < 0) | (group < 0)
        pair[alone] = -1 - np.arange(len(pair))[alone]
        first = np.zeros(len(pair), dtype=bool)
        first[np.unique(pair, return_index=True)[1]] = True
        return first if self.constraint == "with" else np.where(group > 0, graph.scores > SEMI, first)

    def _of_scores(self, given: PairScores) -> Triplets:
        """Of all pairs' predicates, those that the constraint lets in, best first."""
        boxes = np.asarray(given.boxes, dtype=np.float64).reshape(-1, 4)
        labels = np.array([self._object_id(str(label)) for label in given.labels], dtype=np.int64)
        pairs = np.asarray(given.pairs, dtype=np.int64).reshape(-1, 2)
        number, columns = len(pairs), len(self.vocabulary.predicates)
        probabilities = np.asarray(given.predicate_scores, dtype=np.float64)
        of_object = np.asarray(given.scores, dtype=np.float64)
        if not (len(boxes) == len(labels) == len(of_object)) or probabilities.size != number * columns:
            raise SgrlError(
                f"PairScores do not fit together: {len(labels)} labels, {len(boxes)} boxes, {len(of_object)} scores; "
                f"predicate_scores of shape {probabilities.shape}, expected ({number}, {columns})"
            )
        if number and not 0 <= pairs.min() <= pairs.max() < len(labels):
            raise SgrlError(f"pairs must be positions among {len(labels)} objects, found {pairs.min()}..{pairs.max()}")
        probabilities = probabilities.reshape(number, columns)
        with np.errstate(all="ignore"):
            scores = of_object[pairs].prod(axis=1)[:, None] * probabilities
        scores = np.where(np.isfinite(scores), scores, -np.inf)
        if self.constraint == "no" or not number:
            order = np.argsort(-scores, axis=None, kind="stable")[: self._most]
            row, column = order // columns, order % columns
        else:
            probabilities = np.where(np.isfinite(probabilities), probabilities, -np.inf)
            row, column = self._let_in(probabilities)
            order = np.argsort(-scores[row, column], kind="stable")[: self._most]
            row, column = row[order], column[order]
        return Triplets(boxes, labels, pairs[row, 0], column, pairs[row, 1])

    def _let_in(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = [], []
        everyone = np.arange(len(probabilities))
        for i, group in enumerate(self._groups):
            part = probabilities[:, group]
            if self.constraint == "with" or i == 0:
                row, column = everyone, part.argmax(axis=1)
            else:
                row, column = np.nonzero(part > SEMI)
            rows.append(row)
            columns.append(group[column])
        return np.concatenate(rows), np.concatenate(columns)


def _size_of(graph: Any) -> tuple[int | None, int | None]:
    return getattr(graph, "width", None), getattr(graph, "height", None)
