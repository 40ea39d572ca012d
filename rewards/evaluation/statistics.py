"""What stands behind a mean: predicates one by one, how far confidences can be trusted.

Plain functions of counts and columns, numpy only. `rewards.evaluation` feeds them while predictions stream by.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from rewards.metrics.bootstrap import ratio
from sgrl.vocabulary import normalised

GROUPS = ("head", "body", "tail")
BINS = 10
LARGEST_COUNTER = 20_000
"""Different predicates that are counted by name; a hostile model may write any number of them."""


def head_body_tail(frequency: Mapping[str, int]) -> dict[str, str]:
    """Predicates by frequency in three groups of equal number, those left over in body and tail: 16, 17, 17 of 50.

    The rule of rank is one of two in use. The other one, head above 10,000 training instances, tail below 500 (Li et
    al., BGNN, 2021), is made for VG150 and would put all of a smaller data set into its tail.

    >>> head_body_tail({"on": 9, "in": 5, "riding": 2, "eating": 1})
    {'on': 'head', 'in': 'body', 'riding': 'tail', 'eating': 'tail'}
    """
    ranked = sorted(frequency, key=lambda name: (-frequency[name], name))
    head = len(ranked) // 3
    body = head + (len(ranked) - head) // 2
    return {name: GROUPS[(i >= head) + (i >= body)] for i, name in enumerate(ranked)}


class PredicateCounts:
    """How often each predicate is in the references, was predicted, and was right.

    Predicates are compared as the metrics compare them and named as the references spell them.

    Args:
        frequency: how often each predicate occurs in training; decides on head, body and tail. Without it the
            references decide.
    """

    def __init__(self, frequency: Mapping[str, int] | None = None):
        self.names: dict[str, str] = {}
        self.frequency: Counter[str] = Counter()
        for name, count in (frequency or {}).items():
            self.frequency[self._key(name)] += count
        self.reference: Counter[str] = Counter()
        self.predicted: Counter[str] = Counter()
        self.right: Counter[str] = Counter()

    def _key(self, name: str) -> str:
        key = normalised(name)
        self.names.setdefault(key, name)
        return key

    def add(self, reference: Sequence[str], predicted: Sequence[str], right: Sequence[str]) -> None:
        """Predicates of one image; `right` as the reference spells them."""
        self.reference.update(map(self._key, reference))
        self.right.update(map(normalised, right))
        self.predicted.update(map(normalised, predicted))
        if len(self.predicted) > LARGEST_COUNTER:
            known = self.reference.keys() | self.frequency.keys()
            others = [name for name in self.predicted if name not in known]
            self.predicted[""] = sum([self.predicted.pop(name) for name in others])

    def rows(self) -> list[dict]:
        """One dict per predicate of the references, and per one of training that was predicted, most frequent first:
        predicate, reference, predicted, right, precision, recall, f1, group."""
        group = head_body_tail(self.frequency or self.reference)
        known = self.reference.keys() | (self.frequency.keys() & self.predicted.keys())
        return [
            {"predicate": self.names[key]}
            | _row(self.reference[key], self.predicted[key], self.right[key])
            | {"group": group.get(key, GROUPS[-1])}  # never in training: rarer than what is
            for key in sorted(known, key=lambda key: (-self.reference[key], key))
        ]

    def unknown(self, keep: int = 20) -> dict:
        """Predicted relations whose predicate no reference has, nor training: how many, and the most frequent."""
        known = self.reference.keys() | self.frequency.keys()
        found = Counter({name: count for name, count in self.predicted.items() if name not in known})
        return {"relations": found.total(), "most": {name: n for name, n in found.most_common(keep) if name}}


def group_rows(rows: Sequence[Mapping]) -> list[dict]:
    """Head, body and tail of `PredicateCounts.rows`: pooled figures, and mean_recall over the predicates that occur.

    Each: group, predicates, reference, predicted, right, precision, recall, f1, mean_recall.
    """
    found = []
    for group in GROUPS:
        members = [row for row in rows if row["group"] == group]
        sums = [sum(row[name] for row in members) for name in ("reference", "predicted", "right")]
        recalls = [row["recall"] for row in members if row["reference"]]
        found.append(
            {"group": group, "predicates": [row["predicate"] for row in members]}
            | _row(*sums)
            | {"mean_recall": float(np.mean(recalls)) if recalls else 0.0}
        )
    return found


def _row(reference: int, predicted: int, right: int) -> dict:
    return {
        **{"reference": reference, "predicted": predicted, "right": right},
        "precision": right / predicted if predicted else 0.0,
        "recall": right / reference if reference else 0.0,
        "f1": 2 * right / (reference + predicted) if reference + predicted else 0.0,
    }


class Calibration:
    """Confidences of predicted relations beside whether they were right; nine bytes each."""

    def __init__(self):
        self._confidence = array("d")
        self._right = bytearray()
        self.without = 0

    def add(self, confidences: Sequence, right: set[int], relations: int) -> None:
        """Of one image: a confidence in [0, 1] or None for each of `relations` relations; `right` are positions.

        What has no confidence, or none that is a number in [0, 1], is counted in `without`: all, if they are not as
        many as the relations.
        """
        if not isinstance(confidences, Sequence) or len(confidences) != relations:
            self.without += relations
            return
        for position, value in enumerate(confidences):
            if type(value) in (int, float) and 0 <= value <= 1:
                self._confidence.append(value)
                self._right.append(position in right)
            else:
                self.without += 1

    def compute(self) -> dict | None:
        """bins (low, high, relations, and the means confidence and precision), ece, auroc, relations,
        without_confidence; None if no relation has a confidence.

        ece: expected calibration error (Naeini et al., 2015), the mean distance of confidence and precision in bins of
        equal width. auroc: the chance that a right relation has a higher confidence than a wrong one, ties counting
        half; None if all are right or all wrong.
        """
        if not self._confidence:
            return None
        confidence = np.frombuffer(self._confidence, dtype=np.float64)
        right = np.frombuffer(self._right, dtype=np.uint8)
        place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        count = np.bincount(place, minlength=BINS)
        mean = ratio(np.bincount(place, confidence, BINS), count)
        precision = ratio(np.bincount(place, right, BINS), count)
        bins = [
            {"low": i / BINS, "high": (i + 1) / BINS, "relations": int(count[i])}
            | ({"confidence": float(mean[i]), "precision": float(precision[i])} if count[i] else {})
            for i in range(BINS)
        ]
        return {
            "bins": bins,
            "ece": float((count * np.abs(mean - precision)).sum() / len(confidence)),
            "auroc": auroc(confidence, right),
            "relations": len(confidence),
            "without_confidence": self.without,
        }


def auroc(scores, right) -> float | None:
    """Area under the ROC curve: the chance that something right scores higher than something wrong.

    scores: (N,); right: (N,) 0 or 1. None if one of the kinds is missing.

    >>> auroc([0.9, 0.8, 0.8, 0.1], [1, 1, 0, 0])
    0.875
    """
    right = np.asarray(right, dtype=bool)
    _, place, count = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # equal scores share the mean of their ranks
    n, m = int(right.sum()), int((~right).sum())
    return float((rank[right].sum() - n * (n + 1) / 2) / (n * m)) if n and m else None
