"""Everything that is said about a set of predictions: metrics.json.

recipes/evaluate.py and `python -m rewards score` both count with `Evaluation` and print with `tables.table`.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from rewards.evaluation.calibration import Calibration
from rewards.evaluation.tables import table
from rewards.metrics.bootstrap import RESAMPLES, interval, ratio, resampled_sums
from rewards.metrics.predicates import group_rows
from rewards.metrics.strict import COUNTS, KINDS, VALUES, Comparison, SceneGraphMetrics
from rewards.metrics.sums import Sums
from rewards.metrics.written import WrittenRecall
from sgrl.text import Codec

TOGETHER = 256
"""Rows that are compared at once."""

NO_PREDICTION = "no prediction"
CUT_OFF = " (cut off at the limit of tokens)"
LARGEST_SPENT = 1e7
"""Tokens or seconds of an image, which sums have room for."""

LARGEST_REASONS = 1000
"""Different reasons that are counted by name."""

_SPENT = ("tokens", "seconds")
_COLUMNS = (*VALUES, "failure", *COUNTS)


class Evaluation:
    """Counts predictions one by one; keeps about 100 bytes of each, for the intervals, and 9 of each confidence.

    Args:
        codec: layout of predictions and references.
        protocol: as in SceneGraphMetrics.
        frequency: how often each predicate occurs in training, for head, body and tail.
        metric: what compares, in place of SceneGraphMetrics with these arguments.
    """

    def __init__(
        self,
        codec: str | Codec,
        *,
        protocol: str = "default",
        frequency: Mapping[str, int] | None = None,
        metric: SceneGraphMetrics | None = None,
    ):
        self.metrics = metric or SceneGraphMetrics(codec, 1, 1, protocol=protocol, frequency=frequency)
        self.calibration = Calibration()
        self.recall = WrittenRecall()
        self.valid = self.missing = self.truncated = 0
        self.failure_reasons: Counter[str] = Counter()
        self.format_errors: Counter[str] = Counter()
        self._images = array("f")
        self._spent = {name: Sums() for name in _SPENT}
        self._spending = dict.fromkeys(_SPENT, 0)  # how many rows say it

    def add(self, row: Mapping[str, Any]) -> None:
        """Score and count a row of predictions: prediction (None: there is none), solution, width, height, and perhaps
        confidence, tokens, seconds, finish_reason.

        Raises:
            FormatError: the reference is malformed.
        """
        self.add_all([row])

    def add_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """`add` of each row, in less time."""
        for row, found in self._compared(rows):
            self.count(row, found)

    def scored(
        self, rows: Iterable[dict[str, Any]], counts: Callable[[dict[str, Any]], bool]
    ) -> Iterator[dict[str, Any]]:
        """The same, giving the rows back with `score` and `matched`, as predictions.jsonl holds them (see
        rewards.metrics.strict.Comparison).

        counts: whether a row is one of the images that the figures are about.
        """
        for row, found in self._compared(rows):
            if counts(row):
                self.count(row, found)
            score = {name: round(value, 6) for name, value in found.values.items()}
            yield row | {"score": score, "matched": found.matched}

    def _compared(self, rows: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        rows = iter(rows)
        names = ("prediction", "solution", "width", "height")
        while block := list(itertools.islice(rows, TOGETHER)):
            found = self.metrics.compare_many([tuple(row[name] for name in names) for row in block])
            yield from zip(block, found, strict=True)

    def count(self, row: Mapping[str, Any], found: Comparison) -> None:
        """Count what the metrics found in a row."""
        self.metrics.count(found)
        self._images.extend([found.values[name] for name in _COLUMNS])
        for name, spent in self._spent.items():
            value = row.get(name)
            if value is not None and type(value) in (int, float) and 0 <= value < LARGEST_SPENT:
                self._spending[name] += 1
                spent.add(np.array(value))
        cut = row.get("finish_reason") == "length"
        self.truncated += cut
        self.valid += found.error is None and found.graph is not None
        self.recall.add(found.graph, found.truth, confidences=row.get("confidence"))
        if found.graph is None:
            reason = "a graph without objects" if found.error is None else found.error.kind
            if row["prediction"] is None:
                self.missing += 1
                reason = NO_PREDICTION
            _count_reason(self.failure_reasons, reason + CUT_OFF * cut)
            return
        if found.error is not None:
            _count_reason(self.format_errors, found.error.kind + CUT_OFF * cut)
        if "confidence" in row:
            right = {i for i, _ in found.matched["relations"]}
            self.calibration.add(row["confidence"], right, len(found.graph.relations))

    def merge(self, other: Evaluation) -> None:
        """Add what another has counted, of other images or in another process; its images follow these ones.

        Raises:
            SgrlError: the settings differ.
        """
        self.metrics.merge(other.metrics)
        self.recall.merge(other.recall)
        self.calibration.merge(other.calibration)
        for name in ("valid", "missing", "truncated"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in (
            (self.failure_reasons, other.failure_reasons),
            (self.format_errors, other.format_errors),
        ):
            for reason, count in theirs.items():
                _count_reason(mine, reason, count)
        self._images.extend(other._images)
        for name, total in other._spent.items():
            self._spending[name] += other._spending[name]
            self._spent[name] += total

    def compute(self, resamples: int = RESAMPLES) -> dict[str, Any]:
        """metrics.json: what `SceneGraphMetrics.compute` gives, and

        protocol: by which it was counted.
        valid_rate: share of the predictions that are valid answers (what the format reward asks for).
        missing: images without a prediction; they are among the failures.
        mean_tokens, seconds_per_graph, truncated: of the rows' tokens, seconds and finish_reason; None without.
        intervals: {figure: [low, high]}, 95 %, by bootstrap over images; none of no image.
        predicates, groups, unknown_predicates: see rewards.metrics.predicates.
        failure_reasons: {why there is no graph: count}. format_errors: {why a graph is no valid answer: count}.
        calibration: of the rows' confidence; None without.
        recall: Recall@K in both rankings, see rewards.metrics.written.
        """
        n = max(1, self.metrics.samples)
        rows = self.metrics.predicates.rows()
        return {
            "protocol": self.metrics.protocol,
            **self.metrics.compute(),
            "valid_rate": self.valid / n,
            "missing": self.missing,
            "mean_tokens": self._mean("tokens"),
            "seconds_per_graph": self._mean("seconds"),
            "truncated": self.truncated,
            "intervals": {name: interval(values) for name, values in self._resampled(resamples).items()},
            "predicates": rows,
            "groups": group_rows(rows),
            "unknown_predicates": self.metrics.predicates.unknown(),
            "failure_reasons": _ordered(self.failure_reasons),
            "format_errors": _ordered(self.format_errors),
            "calibration": self.calibration.compute(),
            "recall": self.recall.compute(resamples),
        }

    def columns(self) -> np.ndarray:
        """(images, figures) float32: what is counted of each image, in the order of `add`."""
        return np.array(self._images, dtype=np.float32).reshape(-1, len(_COLUMNS))

    def lines(self, found: Mapping[str, Any]) -> list[str]:
        """What `compute` gives, as text."""
        return [table(found)]

    def _mean(self, name: str) -> float | None:
        rows = self._spending[name]
        return float(self._spent[name].total()) / rows if rows else None

    def _resampled(self, resamples: int) -> dict[str, np.ndarray]:
        columns = self.columns()
        return figures(resampled_sums(columns, resamples), len(columns)) if len(columns) else {}


def figures(sums: np.ndarray, images: int) -> dict[str, np.ndarray]:
    """Means and pooled figures from sums (..., figures) of `Evaluation.columns`, under the names of metrics.json."""
    column = {name: sums[..., i] for i, name in enumerate(_COLUMNS)}
    found = {"failure_rate": column["failure"] / images} | {name: column[name] / images for name in VALUES}
    for kind in KINDS:
        right, predicted, reference = (column[f"{kind}s_{name}"] for name in ("right", "predicted", "reference"))
        found[f"pooled_{kind}_precision"] = ratio(right, predicted)
        found[f"pooled_{kind}_recall"] = ratio(right, reference)
        found[f"pooled_{kind}_f1"] = ratio(2 * right, predicted + reference)
    return found


def differences(ours: Evaluation, theirs: Evaluation, resamples: int = RESAMPLES) -> dict[str, tuple[Any, ...]]:
    """{figure: (difference, low, high)} of two evaluations of the same images in the same order: ours less theirs,
    with a paired 95 % interval (the same images are drawn for both)."""
    columns = np.concatenate([ours.columns(), theirs.columns()], axis=1)
    images, half = len(columns), len(_COLUMNS)
    found: dict[str, list[np.ndarray]] = {}
    for sums in (columns.sum(axis=0, dtype=np.float64), resampled_sums(columns, resamples)):
        first, second = figures(sums[..., :half], images), figures(sums[..., half:], images)
        for name, values in first.items():
            found.setdefault(name, []).append(values - second[name])
    return {name: (float(difference), *interval(drawn)) for name, (difference, drawn) in found.items()}


def _count_reason(counter: Counter[str], reason: str, times: int = 1) -> None:
    counter[reason if reason in counter or len(counter) < LARGEST_REASONS else "other reasons"] += times


def _ordered(counter: Counter[str]) -> dict[str, int]:
    """Most frequent first, in whatever order they were counted."""
    return {reason: counter[reason] for reason in sorted(counter, key=lambda reason: (-counter[reason], reason))}
