"""Recall@K of written graphs in both rankings: by the confidence of their relations, and in the order of writing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from rewards.metrics.bootstrap import RESAMPLES, interval, resampled_sums
from rewards.metrics.protocol import Metric
from rewards.metrics.recall import SceneGraphRecall
from rewards.metrics.sums import ALL
from rewards.reading import CompletionError
from sgrl.text import ParsedGraph

KS = (5, 10, 20, 50, 100)
"""Models write few relations: where 20 hold them all, only a smaller K tells one ranking from the other."""

_NAMES = ("recall", "mean_recall", "f1", "pooled_recall", "pooled_mean_recall")
_KEYS = tuple(f"recall@{k}" for k in (*KS, ALL))
_FIGURES = tuple(f"{name}@{k}" for name in _NAMES for k in (*KS, ALL))


class WrittenRecall(Metric):
    """Counts graphs one by one. Figures as in SceneGraphRecall, mean recall over the predicates of the references.

    >>> graph = ParsedGraph(["cat", "mat"], [(0, 0, 9, 9), (0, 5, 9, 9)], [(0, "near", 1), (0, "on", 1)])
    >>> counted = WrittenRecall()
    >>> counted.add(graph, graph, confidences=[0.5, 0.9])
    {'with_confidences': 1}
    >>> counted.compute()["difference"]["recall@5"]
    0.0
    """

    name, ranks = "written-recall", True

    def __init__(self) -> None:
        # what has no confidences is ranked once
        self._plain, self._written, self._sure = (SceneGraphRecall(ks=KS, keep_images=True) for _ in range(3))

    def add(
        self,
        prediction: ParsedGraph | None,
        reference: ParsedGraph,
        confidences: Sequence[Any] | None = None,
    ) -> dict[str, int]:
        """Count one image and return whether it is ranked by confidences. These are of the prediction's relations;
        None, or not as many, is none. What is no finite number is the confidence of a relation that ranks last."""
        graph, truth = prediction, reference
        for what, found in (("prediction", graph), ("reference", truth)):
            if not isinstance(found, ParsedGraph) and not (found is None and what == "prediction"):
                raise CompletionError(
                    f"the {what} must be a ParsedGraph, found {type(found).__name__}; SceneGraphRecall takes texts"
                )
        if graph is None or not isinstance(confidences, Sequence) or len(confidences) != len(graph.relations):
            confidences = ()
        numbers = [x if type(x) in (int, float) and math.isfinite(x) else None for x in confidences]
        if all(x is None for x in numbers):
            self._plain.count(self._plain.compare(graph, truth))
            return {"with_confidences": 0}
        self._written.count(self._written.compare(graph, truth))
        self._sure.count(self._sure.compare(graph, truth, confidences=numbers))
        return {"with_confidences": 1}

    def merge(self, other: Self) -> None:
        self.check_same(other)
        for name in ("_plain", "_written", "_sure"):
            getattr(self, name).merge(getattr(other, name))

    def per_predicate(self) -> dict[str, dict[str, float]]:
        """As SceneGraphRecall.per_predicate: by confidence, where there are any."""
        return self._whole(self._sure).per_predicate()

    def _whole(self, ranked: SceneGraphRecall) -> SceneGraphRecall:
        """Images without confidences and those in one of the rankings."""
        whole = SceneGraphRecall(ks=KS, keep_images=True)
        whole.merge(self._plain)
        whole.merge(ranked)
        return whole

    def compute(self, resamples: int = RESAMPLES) -> dict[str, Any]:
        """images, images_without_relations (they are in no mean), images_with_confidences; then "writing",
        "confidence" and their "difference" (confidence less writing), each with recall@K, mean_recall@K, f1@K,
        pooled_recall@K and pooled_mean_recall@K for K of 5 to 100 and "all"; then "intervals" of the recall@K of each
        of the three, 95 %, paired where it is the difference. Without confidences two of the three are None.
        """
        figures, images = [], []
        for ranked in (self._written, self._sure):
            whole = self._whole(ranked)
            figures.append(whole.compute())
            images.append(whole.of_images())
        counts = {name: figures[0][name] for name in ("images", "images_without_relations")}
        counts["images_with_confidences"] = self._sure.images
        writing, confidence = ({name: found[name] for name in _FIGURES} for found in figures)
        difference = {name: confidence[name] - writing[name] for name in _FIGURES}
        sure = self._sure.images > 0
        return {
            **counts,
            "writing": writing,
            "confidence": confidence if sure else None,
            "difference": difference if sure else None,
            "intervals": _intervals(images[0], images[1], resamples),
        }


def _intervals(writing: np.ndarray, confidence: np.ndarray, resamples: int) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Of the recalls of images (N, K) in both rankings, the same images in the same order."""
    if not len(writing):
        return {}
    means = resampled_sums(np.concatenate([writing, confidence], axis=1), resamples) / len(writing)
    first, second = np.split(means, 2, axis=1)
    return {
        name: {key: interval(column) for key, column in zip(_KEYS, drawn.T, strict=True)}
        for name, drawn in (("writing", first), ("confidence", second), ("difference", second - first))
    }


def recall_lines(found: Mapping[str, Any]) -> list[str]:
    """What `WrittenRecall.compute` gives, as text."""
    ks = (*KS, ALL)
    head = "recall of relations"
    rows = [f"{head:<21}" + "".join(f"{f'@{k}':>8}" for k in ks)]
    for title, ranking, sign in (
        ("as written", "writing", ""),
        ("by confidence", "confidence", ""),
        ("difference", "difference", "+"),
    ):
        if found[ranking]:
            rows.append(f"{title:<21}" + "".join(f"{found[ranking][f'recall@{k}']:>{sign}8.3f}" for k in ks))
            ends = found["intervals"].get(ranking)
            for i, end in enumerate(("from", "to")) if ends else ():
                rows.append(f"{f'  95 % {end}':<21}" + "".join(f"{ends[f'recall@{k}'][i]:>{sign}8.3f}" for k in ks))
    rows.append(f"{'mean recall, written':<21}" + "".join(f"{found['writing'][f'mean_recall@{k}']:>8.3f}" for k in ks))
    if found["images_without_relations"]:
        rows.append(f"{found['images_without_relations']:,} images without relations are in no recall.")
    return rows
