"""Predicates one by one: how often each is in the references, was predicted, and was right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgrl.vocabulary import normalised

GROUPS = ("head", "body", "tail")
COUNTED = ("reference", "predicted", "right")
_TOGETHER = 4096
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

    Predicates are compared as the metrics compare them and named in their most frequent spelling.

    Args:
        frequency: how often each predicate occurs in training; decides on head, body and tail. Without it the
            references decide.
    """

    def __init__(self, frequency: Mapping[str, int] | None = None):
        self.frequency = Counter(frequency or {})
        self.counters: dict[str, Counter[str]] = {kind: Counter() for kind in COUNTED}
        self._pending: dict[str, list[str]] = {kind: [] for kind in COUNTED}  # many are counted faster than few

    def add(self, reference: Sequence[str], predicted: Sequence[str], right: Sequence[str]) -> None:
        """Predicates of one image; `right` as the reference spells them."""
        pending = self._pending
        pending["reference"] += reference
        pending["predicted"] += predicted
        pending["right"] += right
        if len(pending["predicted"]) + len(pending["reference"]) > _TOGETHER:
            self._count()

    def merge(self, other: PredicateCounts) -> None:
        """Add what another has counted."""
        for kind, names in other._pending.items():
            self.counters[kind].update(other.counters[kind])
            self._pending[kind] += names
        self._count()

    def _count(self) -> None:
        for kind, names in self._pending.items():
            self.counters[kind].update(names)
            names.clear()
        predicted = self.counters["predicted"]
        if len(predicted) > LARGEST_COUNTER:
            known = {normalised(name) for name in (*self.counters["reference"], *self.frequency)}
            others = [name for name in predicted if normalised(name) not in known]
            predicted[""] = sum([predicted.pop(name) for name in others])

    def _compared(self) -> tuple[Counter[str], ...]:
        """Training, and each of COUNTED, by what spellings have in common."""
        self._count()
        found: list[Counter[str]] = []
        for counter in (self.frequency, *self.counters.values()):
            found.append(Counter())
            for name, count in counter.items():
                found[-1][normalised(name)] += count
        return tuple(found)

    def rows(self) -> list[dict[str, Any]]:
        """One dict per predicate of the references, and per one of training that was predicted, most frequent first:
        predicate, reference, predicted, right, precision, recall, f1, group."""
        frequency, reference, predicted, right = self._compared()
        group = head_body_tail(frequency or reference)
        spelt = Counter(self.frequency)
        spelt.update(self.counters["reference"])
        names: dict[str, str] = {}
        for name in sorted(spelt, key=lambda name: (-spelt[name], name)):
            names.setdefault(normalised(name), name)
        known = reference.keys() | (frequency.keys() & predicted.keys())
        return [
            {"predicate": names[key]}
            | _row(reference[key], predicted[key], right[key])
            | {"group": group.get(key, GROUPS[-1])}  # never in training: rarer than what is
            for key in sorted(known, key=lambda key: (-reference[key], key))
        ]

    def unknown(self, keep: int = 20) -> dict[str, Any]:
        """Predicted relations whose predicate no reference has, nor training: how many, and the most frequent."""
        frequency, reference, predicted, _ = self._compared()
        known = reference.keys() | frequency.keys()
        found = Counter({name: count for name, count in predicted.items() if name not in known})
        most = sorted((name for name in found if name), key=lambda name: (-found[name], name))
        return {"relations": found.total(), "most": {name: found[name] for name in most[:keep]}}


def group_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
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


def _row(reference: int, predicted: int, right: int) -> dict[str, Any]:
    return {
        **{"reference": reference, "predicted": predicted, "right": right},
        "precision": right / predicted if predicted else 0.0,
        "recall": right / reference if reference else 0.0,
        "f1": 2 * right / (reference + predicted) if reference + predicted else 0.0,
    }
