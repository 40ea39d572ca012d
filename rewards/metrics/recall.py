"""Recall@K of scene graphs in images (VG150, PSG): of detectors' scores and of graphs that a model has written.

A reference relation is found at K if one of the K best predicted relations has its predicate, its subject's and
object's class, and boxes that both reach an IoU of 0.5. One prediction may find several equal reference relations.

* recall@K (R@K): the share that is found, averaged over images (Lu et al., 2016; Xu et al., 2017).
* ng_recall@K (ngR@K): the same without graph constraint. With it, a detector's pair of objects enters the ranking
  once, with its best predicate; without it, with every predicate (Newell and Deng, 2017; Zellers et al., 2018). A
  graph that a model has written is taken as written, as R1-SGG does: every relation enters both rankings.
* mean_recall@K (mR@K): for each predicate the share averaged over the images that have it, then the mean over all
  predicates of the vocabulary; one that no reference has counts as 0 (Tang et al., 2019). f1@K is the harmonic mean of
  recall@K and mean_recall@K, as REACT and SGG-Benchmark report.
* zero_shot_recall@K (zR@K): among the relations whose triplet of classes never occurs in the training set.
* pooled_recall@K and pooled_mean_recall@K: the same with all images in one sum, where every relation counts alike.

"@all" is recall without a limit: what remains of the metric for graphs whose relations have no order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from rewards.metrics.protocol import Metric, Settings
from rewards.metrics.ranking import (
    NEVER,
    SCORED,
    PairScores,
    Ranked,
    Triplet,
    first_ranks,
    of_scores,
    plain,
    ranked_pairs,
    spelling,
)
from rewards.metrics.sums import ALL, Found, RecallSums, whole
from rewards.reading import (
    PROTOCOLS,
    check_protocol,
    check_reference,
    completion_of,
    is_graph,
    read_reference,
    text_of,
)
from sgrl.errors import SgrlError
from sgrl.graph import SceneGraph
from sgrl.scores import ScoredGraph
from sgrl.text import Codec, FormatError, ParsedGraph, get_codec
from sgrl.vocabulary import Vocabulary

KS = (20, 50, 100)
_COUNTS = ("images", "failures", "images_without_relations", "images_left_out", "images_zero_shot")


class SceneGraphRecall(Metric):
    """Recall of a stream of images; memory grows with the number of predicates, not of images.

    Args:
        codec, width, height: of texts, as in SceneGraphMetrics; not needed for graphs and scores.
        vocabulary: the classes that mean recall averages over; predicates that only references have are added. Without
            it, those of the references. Names the columns of PairScores.
        training_triplets: (subject, predicate, object) labels that occur in training (see `triplets`); all others are
            zero-shot. Or give zero_shot_triplets, the published list. Without either there is no zero-shot recall.
        ks: the K.
        iou_threshold: least IoU of both boxes, in [0, 1].
        keep_images: also keep the recall of each image, for `of_images`; four bytes for every K.
        protocol: "default", or "published" to reproduce R1-SGG's numbers: boxes are a pixel larger on both sides,
            relations with a class outside the vocabulary take no rank, an image with objects of the vocabulary but no
            relation is left out of the means, and PairScores are ranked as they come where the graph constraint holds.

    Raises:
        SgrlError: an argument that makes no sense.

    >>> counted = SceneGraphRecall("toon", 640, 480)
    >>> graph = "obj[2]{id,name,x1,y1,x2,y2}:\\n 1,cat,1,1,9,9\\n 2,mat,0,5,9,9\\nrel[1]{subj,pred,obj}:\\n 1,on,2"
    >>> counted.add(graph, graph)["found@20"]
    1
    >>> counted.add("no graph", graph)["found@20"], counted.compute()["recall@20"]
    (0, 0.5)
    """

    name, protocols, ranks = "recall", PROTOCOLS, True
    same = ("ks", "iou_threshold", "protocol", "vocabulary", "keep_images", "_listed", "_listed_are_zero_shot")

    def __init__(
        self,
        codec: str | Codec | None = None,
        width: int | None = None,
        height: int | None = None,
        *,
        vocabulary: Vocabulary | None = None,
        training_triplets: Collection[Triplet] | None = None,
        zero_shot_triplets: Collection[Triplet] | None = None,
        ks: Sequence[int] = KS,
        iou_threshold: float = 0.5,
        keep_images: bool = False,
        protocol: str = "default",
    ):
        check_protocol(protocol)
        if protocol == "published" and vocabulary is None:
            raise SgrlError("the published protocol leaves out what is not in the vocabulary; give vocabulary=")
        if not 0 <= iou_threshold <= 1:
            raise SgrlError(f"iou_threshold must lie in [0, 1], found {iou_threshold!r}")
        if not ks or not all(isinstance(k, int) and k > 0 for k in ks):
            raise SgrlError(f"ks must be positive whole numbers, found {ks!r}")
        if training_triplets is not None and zero_shot_triplets is not None:
            raise SgrlError("give training_triplets or zero_shot_triplets, not both")
        self.codec = None if codec is None else get_codec(codec)
        self.width, self.height = width, height
        self.vocabulary = vocabulary
        self.ks = tuple(sorted(set(ks)))
        self.iou_threshold = iou_threshold
        self.keep_images = keep_images
        self.protocol = protocol
        listed = training_triplets if zero_shot_triplets is None else zero_shot_triplets
        self._listed = None if listed is None else {tuple(map(spelling, triplet)) for triplet in listed}
        self._listed_are_zero_shot = zero_shot_triplets is not None
        self._objects = {spelling(label) for label in vocabulary.objects} if vocabulary else set()
        self._predicates = list(vocabulary.predicates) if vocabulary else []
        if vocabulary and vocabulary.groups and self.codec and self.codec.grouped:
            group_of = {label: group for group, labels in vocabulary.groups.items() for label in labels}
            self._predicates = [f"{group_of[label]}__{label}" for label in self._predicates]  # as texts are read
        self._columns = [spelling(label) for label in self._predicates]
        self._names = dict(zip(self._columns, vocabulary.predicates, strict=True)) if vocabulary else {}

        self._counts = RecallSums(self.ks, NEVER, keep_images)
        self.keys = self._counts.keys
        self.images = self.failures = self.images_without_relations = self.images_left_out = self.images_zero_shot = 0
        for predicate in self._columns:
            self._counts.row_of(predicate)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        known = {triplet for graph in settings.training() for triplet in triplets(graph)}
        return cls(
            settings.codec,
            vocabulary=settings.vocabulary,
            training_triplets=known or None,
            protocol=settings.protocol,
        )

    def add(
        self,
        prediction: Any,
        reference: Any,
        width: int | None = None,
        height: int | None = None,
        *,
        confidences: Sequence[float | None] | None = None,
    ) -> dict[str, int]:
        """Count one image and return its own counts.

        Args:
            prediction: any text; None, which finds nothing; a SceneGraph (ranked by its relations' scores and under
                the graph constraint if it has any, else in order), a ParsedGraph, a parsed JSON object or a Ranked; or
                PairScores or a ScoredGraph (sgrl.scores).
            reference: text, SceneGraph or ParsedGraph. Without relations the image is counted, but is in no mean.
            width, height: frame of this image's boxes in texts, if it differs from the one given at the start.
            confidences: of the relations that `codec.recover_parsed` reads from the text; they rank them, and without
                them the order of writing does.

        Returns: relations_predicted, relations_reference, relations_zero_shot, failure (1 for a prediction without an
            object) and, for every K, how many reference relations are found: found@K, ng_found@K and found@all.

        Raises:
            FormatError, SgrlError: the reference is malformed, or arrays do not fit together; nothing is counted.
        """
        found = self.compare(prediction, reference, width, height, confidences=confidences)
        self.count(found)
        wanted = len(found.predicates)
        counts = {"relations_predicted": found.predicted, "relations_reference": wanted}
        counts |= {"relations_zero_shot": len(found.rare), "failure": int(found.failure)}
        for k in self.ks:
            counts[f"found@{k}"] = sum([rank < k for rank in found.ranks])
            counts[f"ng_found@{k}"] = sum([rank < k for rank in found.free])
        return counts | {f"found@{ALL}": wanted - found.ranks.count(NEVER)}

    def compare(
        self,
        prediction: Any,
        reference: Any,
        width: int | None = None,
        height: int | None = None,
        *,
        confidences: Sequence[float | None] | None = None,
    ) -> Found:
        """Where the reference relations of one image rank. Arguments and errors as in `add`; nothing is counted."""
        truth = self._reference(reference, width, height)
        best, free = self._ranked(prediction, confidences, width, height)
        pixel = float(self.protocol == "published")
        ranks = first_ranks(best, truth, self.iou_threshold, pixel)
        free_ranks = ranks if free is best else first_ranks(free, truth, self.iou_threshold, pixel)
        predicates = [predicate for _, predicate, _ in truth.relations]
        rare = []
        if self._listed is not None:
            triplet = ((truth.labels[s], p, truth.labels[o]) for s, p, o in truth.relations)
            rare = [i for i, t in enumerate(triplet) if (t in self._listed) == self._listed_are_zero_shot]
        predicted, failure = len(best.relations), not len(best.labels)
        left_out = self.protocol == "published" and not failure and not predicted
        return Found(predicates, rare, ranks, free_ranks, predicted, failure, left_out)

    def count(self, found: Found) -> None:
        """Count what `compare` gives."""
        self.images += 1
        self.failures += found.failure
        if not found.predicates:
            self.images_without_relations += 1
        elif found.left_out:
            self.images_left_out += 1
        else:
            self.images_zero_shot += bool(found.rare)
            self._counts.add(self.images, found)

    def merge(self, other: Self) -> None:
        self.check_same(other)
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self._counts.merge(other._counts)

    def compute(self) -> dict[str, float]:
        """All figures so far; 0 where there is nothing to find yet.

        images, failures, failure_rate, images_without_relations (in no mean), images_left_out (by the published
        protocol), images_zero_shot, relations_reference, predicates (those of mean recall), predicates_absent (that no
        reference has); then for every K recall@K, mean_recall@K, f1@K, pooled_recall@K, pooled_mean_recall@K, with a
        list of triplets zero_shot_recall@K, and each of them as ng_...; those without ng_ also @all.
        """
        counts, split = self._counts, self._counts.split
        table = counts.table()[[row for _, row in sorted(counts.row.items())]]  # sums in whatever order they came
        counted = self.images - self.images_without_relations - self.images_left_out
        shares, pooled = counts.shares(table)
        recall = whole(counts.images) / max(1, counted)
        mean = shares.mean(axis=0) if len(table) else np.zeros(len(counts.limits))
        both = recall + mean
        present = table[:, 1] > 0
        values = {
            "recall": recall,
            "mean_recall": mean,
            "f1": np.divide(2 * recall * mean, both, out=np.zeros_like(both), where=both > 0),
            "pooled_recall": table[:, 2 + 2 * len(counts.limits) :].sum(axis=0) / max(1.0, table[:, 1].sum()),
            "pooled_mean_recall": pooled[present].sum(axis=0) / max(1, present.sum()),
        }
        if self._listed is not None:
            values["zero_shot_recall"] = whole(counts.zero_shot) / max(1, self.images_zero_shot)
        found = {
            "images": self.images,
            "failures": self.failures,
            "failure_rate": self.failures / max(1, self.images),
            "images_without_relations": self.images_without_relations,
            "images_left_out": self.images_left_out,
            "images_zero_shot": self.images_zero_shot,
            "relations_reference": int(table[:, 1].sum()),
            "predicates": len(table),
            "predicates_absent": int((~present).sum()),
        }
        for name, numbers in values.items():
            found |= {f"{name}{key}": x for key, x in zip(self.keys, numbers[:split].tolist(), strict=True)}
        for name, numbers in values.items():
            found |= {f"ng_{name}@{k}": x for k, x in zip(self.ks, numbers[split:].tolist(), strict=True)}
        return found

    def of_images(self) -> np.ndarray:
        """recall@K of each image in a mean, in the order of `add`: (images, len(keys)) float32.

        Raises:
            SgrlError: it was not kept.
        """
        if not self.keep_images:
            raise SgrlError("the recall of single images was not kept; give keep_images=True to SceneGraphRecall")
        return self._counts.of_images()

    def per_predicate(self) -> dict[str, dict[str, float]]:
        """For each predicate: images and relations that have it, and its recall@K and pooled_recall@K, ng_ too."""
        table = self._counts.table()
        shares, pooled = self._counts.shares(table)
        names = [f"recall{key}" for key in self.keys] + [f"ng_recall@{k}" for k in self.ks]
        pooled_names = [f"pooled_recall{key}" for key in self.keys] + [f"ng_pooled_recall@{k}" for k in self.ks]
        found: dict[str, dict[str, float]] = {}
        for predicate, row in self._counts.row.items():
            values: dict[str, float] = {"images": int(table[row, 0]), "relations": int(table[row, 1])}
            values |= dict(zip(names, shares[row].tolist(), strict=True))
            values |= dict(zip(pooled_names, pooled[row].tolist(), strict=True))
            found[self._names.get(predicate, predicate)] = values
        return found

    @classmethod
    def notes(cls, found: Mapping[str, Any]) -> list[str]:
        return [
            f"{found['images']:,} images, {found['failures']:,} without a graph; "
            f"{found['images_without_relations']:,} references without relations are in no recall; "
            f"{found['predicates']} predicates, {found['predicates_absent']} of them in no reference"
        ]

    def _reference(self, reference: Any, width: int | None, height: int | None) -> ParsedGraph:
        check_reference(reference)
        if not isinstance(reference, SceneGraph | ParsedGraph):
            reference = read_reference(reference, *self._frame(width, height))
        return plain(self._without_groups(reference))

    def _without_groups(self, graph: Any) -> Any:
        """A SceneGraph as texts of the layout would have it."""
        if not isinstance(graph, SceneGraph) or self.codec is None or self.codec.grouped:
            return graph
        return replace(graph, relations=tuple(replace(relation, group=None) for relation in graph.relations))

    def _frame(self, width: int | None, height: int | None) -> tuple[Codec, int, int]:
        width, height = width or self.width, height or self.height
        if self.codec is None or width is None or height is None:
            raise SgrlError("texts need codec, width and height; found none, give them to SceneGraphRecall")
        return self.codec, width, height

    def _ranked(
        self, prediction: Any, confidences: Sequence[float | None] | None, width: int | None, height: int | None
    ) -> tuple[ParsedGraph, ParsedGraph]:
        """The relations in order, with graph constraint and without; the same graph where it has no scores."""
        if isinstance(prediction, ScoredGraph):
            prediction, confidences = of_scores(prediction, self.vocabulary)
        if isinstance(prediction, PairScores):
            if self.vocabulary is None:
                raise SgrlError("PairScores have a column for each predicate; give vocabulary= to name them")
            in_order = self.protocol == "published"
            with_constraint, without = ranked_pairs(prediction, self._predicates, self.ks[-1], in_order=in_order)
            return plain(with_constraint), plain(without)
        if prediction is None:
            prediction = ParsedGraph([], [], [])
        elif not isinstance(prediction, SceneGraph | ParsedGraph | Ranked):
            if not is_graph(prediction):
                prediction = text_of(prediction, SCORED)
            codec, width, height = self._frame(width, height)
            prediction = completion_of(prediction, codec, width, height)
            if isinstance(prediction, str):
                try:  # what the strict reader takes, the lenient one reads alike, in three times as long
                    prediction = codec.parse(prediction, width, height)
                except FormatError:
                    if self.protocol == "published":
                        prediction, _ = codec.recover_published(prediction)
                        if confidences is not None and len(confidences) != len(prediction.relations):
                            confidences = None  # they are of relations that the published reading leaves out
                    else:
                        prediction, _ = codec.recover_parsed(prediction, width, height)
        prediction = self._without_groups(prediction)
        scored = isinstance(prediction, SceneGraph) and any(r.score is not None for r in prediction.relations)
        free = plain(prediction, confidences)
        if self.protocol == "published":
            free = self._known(free)
        if not scored:
            return free, free
        # the first of each pair is the best, because they are ranked
        first: dict[tuple[int, int], tuple[int, str, int]] = {}
        for relation in free.relations:
            first.setdefault((relation[0], relation[2]), relation)
        return free._replace(relations=list(first.values())), free

    def _known(self, graph: ParsedGraph) -> ParsedGraph:
        """Without objects and relations outside the vocabulary. An unknown object keeps its place, but has no name."""
        known = [label in self._objects for label in graph.labels]
        if not any(known):
            return ParsedGraph([], [], [])
        kept = [
            (s, p, o)
            for s, p, o in graph.relations
            if min(s, o) >= 0 and known[s] and known[o] and p in self._counts.row
        ]
        return graph._replace(relations=kept)


def triplets(graph: SceneGraph | ParsedGraph) -> set[Triplet]:
    """The triplets of classes of a graph, in the spelling that zero-shot recall compares. Unite those of training."""
    labels, _, relations = plain(graph)
    return {(labels[s], p, labels[o]) for s, p, o in relations if min(s, o) >= 0}
