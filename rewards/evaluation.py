"""Everything that is said about a set of predictions: metrics.json, and the same as text.

recipes/evaluate.py and `python -m rewards score` both count with `Evaluation` and print with `table`.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from rewards.analysis import (
    RESAMPLES,
    Calibration,
    PredicateCounts,
    group_rows,
    interval,
    ratio,
    resampled_sums,
)
from rewards.metrics import COUNTS, KINDS, VALUES, Comparison, SceneGraphMetrics
from rewards.recall_written import WrittenRecall, recall_lines
from sgrl.terminal import printable
from sgrl.text import Codec

TOGETHER = 256
"""Rows that are compared at once."""

NO_PREDICTION = "no prediction"
CUT_OFF = " (cut off at the limit of tokens)"
LARGEST_REASONS = 1000
"""Different reasons that are counted by name."""

_COLUMNS = (*VALUES, "failure", *COUNTS)


class Evaluation:
    """Counts predictions one by one; keeps about 100 bytes of each, for the intervals, and 9 of each confidence.

    Args:
        codec: layout of predictions and references.
        protocol: as in SceneGraphMetrics.
        frequency: how often each predicate occurs in training, for head, body and tail.
    """

    def __init__(self, codec: str | Codec, *, protocol: str = "default", frequency: Mapping[str, int] | None = None):
        self.metrics = SceneGraphMetrics(codec, 1, 1, protocol=protocol)
        self.predicates = PredicateCounts(frequency)
        self.calibration = Calibration()
        self.recall = WrittenRecall()
        self.valid = self.missing = self.truncated = 0
        self.failure_reasons: Counter[str] = Counter()
        self.format_errors: Counter[str] = Counter()
        self._images = array("f")
        self._spent = {"tokens": [0, 0.0], "seconds": [0, 0.0]}  # how many rows say it, and their sum

    def add(self, row: Mapping) -> None:
        """Score and count a row of predictions: prediction (None: there is none), solution, width, height, and perhaps
        confidence, tokens, seconds, finish_reason.

        Raises:
            FormatError: the reference is malformed.
        """
        self.add_all([row])

    def add_all(self, rows: Iterable[Mapping]) -> None:
        """`add` of each row, in less time."""
        for row, found in self._compared(rows):
            self.count(row, found)

    def scored(self, rows: Iterable[dict], counts: Callable[[dict], bool]) -> Iterator[dict]:
        """The same, giving the rows back with `score` and `matched`, as predictions.jsonl holds them (see
        rewards.metrics.Comparison).

        counts: whether a row is one of the images that the figures are about.
        """
        for row, found in self._compared(rows):
            if counts(row):
                self.count(row, found)
            score = {name: round(value, 6) for name, value in found.values.items()}
            yield row | {"score": score, "matched": found.matched}

    def _compared(self, rows: Iterable) -> Iterator[tuple]:
        rows = iter(rows)
        names = ("prediction", "solution", "width", "height")
        while block := list(itertools.islice(rows, TOGETHER)):
            found = self.metrics.compare_many([tuple(row[name] for name in names) for row in block])
            yield from zip(block, found, strict=True)

    def count(self, row: Mapping, found: Comparison) -> None:
        """Count what the metrics found in a row."""
        self.metrics.count(found)
        self._images.extend([found.values[name] for name in _COLUMNS])
        for name, spent in self._spent.items():
            if type(value := row.get(name)) in (int, float) and 0 <= value < math.inf:
                spent[0] += 1
                spent[1] += value
        cut = row.get("finish_reason") == "length"
        self.truncated += cut
        self.valid += found.error is None and found.graph is not None
        self.recall.add(found.graph, found.truth, row.get("confidence"))
        truth = found.truth.relations
        if found.graph is None:
            reason = "a graph without objects" if found.error is None else found.error.kind
            if row["prediction"] is None:
                self.missing += 1
                reason = NO_PREDICTION
            _count_reason(self.failure_reasons, reason + CUT_OFF * cut)
            self.predicates.add([predicate for _, predicate, _ in truth], (), ())
            return
        if found.error is not None:
            _count_reason(self.format_errors, found.error.kind + CUT_OFF * cut)
        said = found.graph.relations
        right = found.matched["relations"]
        self.predicates.add(
            [predicate for _, predicate, _ in truth],
            [predicate for _, predicate, _ in said],
            [truth[j][1] for _, j in right],
        )
        if "confidence" in row:
            self.calibration.add(row["confidence"], {i for i, _ in right}, len(said))

    def compute(self, resamples: int = RESAMPLES) -> dict:
        """metrics.json: what `SceneGraphMetrics.compute` gives, and

        protocol: by which it was counted.
        valid_rate: share of the predictions that are valid answers (what the format reward asks for).
        missing: images without a prediction; they are among the failures.
        mean_tokens, seconds_per_graph, truncated: of the rows' tokens, seconds and finish_reason; None without.
        intervals: {figure: [low, high]}, 95 %, by bootstrap over images; none of no image.
        predicates, groups, unknown_predicates: see rewards.analysis.
        failure_reasons: {why there is no graph: count}. format_errors: {why a graph is no valid answer: count}.
        calibration: of the rows' confidence; None without.
        recall: Recall@K in both rankings, see rewards.recall_written.
        """
        n = max(1, self.metrics.samples)
        rows = self.predicates.rows()
        return {
            "protocol": self.metrics.protocol,
            **self.metrics.compute(),
            "valid_rate": self.valid / n,
            "missing": self.missing,
            "mean_tokens": _mean(*self._spent["tokens"]),
            "seconds_per_graph": _mean(*self._spent["seconds"]),
            "truncated": self.truncated,
            "intervals": {name: interval(values) for name, values in self._resampled(resamples).items()},
            "predicates": rows,
            "groups": group_rows(rows),
            "unknown_predicates": self.predicates.unknown(),
            "failure_reasons": dict(self.failure_reasons.most_common()),
            "format_errors": dict(self.format_errors.most_common()),
            "calibration": self.calibration.compute(),
            "recall": self.recall.compute(resamples),
        }

    def columns(self) -> np.ndarray:
        """(images, figures) float32: what is counted of each image, in the order of `add`."""
        return np.array(self._images, dtype=np.float32).reshape(-1, len(_COLUMNS))

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


def differences(ours: Evaluation, theirs: Evaluation, resamples: int = RESAMPLES) -> dict[str, tuple]:
    """{figure: (difference, low, high)} of two evaluations of the same images in the same order: ours less theirs,
    with a paired 95 % interval (the same images are drawn for both)."""
    columns = np.concatenate([ours.columns(), theirs.columns()], axis=1)
    images, half = len(columns), len(_COLUMNS)
    found = {}
    for sums in (columns.sum(axis=0, dtype=np.float64), resampled_sums(columns, resamples)):
        first, second = figures(sums[..., :half], images), figures(sums[..., half:], images)
        for name, values in first.items():
            found.setdefault(name, []).append(values - second[name])
    return {name: (float(difference), *interval(drawn)) for name, (difference, drawn) in found.items()}


def _mean(count: int, total: float) -> float | None:
    return total / count if count else None


def _count_reason(counter: Counter[str], reason: str) -> None:
    counter[reason if reason in counter or len(counter) < LARGEST_REASONS else "other reasons"] += 1


def table(found: Mapping, predicates: int = 10) -> str:
    """metrics.json as text. predicates: how many of the most frequent ones."""
    lines = [f"{'':<12}{'precision':<22}{'recall':<22}F1"]
    for kind in KINDS:
        for pooled, head in (("", f"{kind}s"), ("pooled_", "  pooled")):
            cells = (with_interval(found, f"{pooled}{kind}_{name}") for name in ("precision", "recall", "f1"))
            lines.append(f"{head:<12}" + "".join(f"{cell:<22}" for cell in cells).rstrip())
    lines += [
        f"SGG score {with_interval(found, 'sgg_score')}; failure rate {with_interval(found, 'failure_rate')}: "
        f"{found['failures']:,} of {found['samples']:,} images; {found['valid_rate']:.3f} are valid answers",
        f"Protocol: {found['protocol']}. In brackets: 95 % intervals, bootstrap over images.",
    ]
    lines += ["", *recall_lines(found["recall"])]
    for name, head in (("failure_reasons", "No graph"), ("format_errors", "Readable, but no valid answer")):
        if found[name]:
            lines += ["", f"{head}:"] + [
                f"{count:>8,}  {printable(reason, 300)}" for reason, count in list(found[name].items())[:8]
            ]
    if found["predicates"]:
        names = [printable(row["predicate"], 60) for row in found["predicates"][:predicates]]
        width = max(map(len, [*names, "predicate", "head"])) + 2
        head = f"{'':<6}{'reference':>10}{'predicted':>10}{'right':>8}{'precision':>10}{'recall':>8}{'F1':>8}"
        lines += ["", f"{'predicate':<{width}}{head}"]
        for name, row in zip(names, found["predicates"], strict=False):
            lines.append(f"{name:<{width}}{row['group']:<6}{_cells(row)}")
        left = len(found["predicates"]) - predicates
        lines += [f"... and {left} more"] if left > 0 else []
        for row in found["groups"]:
            if row["predicates"]:
                size = f"{len(row['predicates'])} predicates"
                lines.append(
                    f"{row['group']:<{width + 6}}{_cells(row)}  mean recall {row['mean_recall']:.3f} of {size}"
                )
    if found["calibration"]:
        c = found["calibration"]
        area = "" if c["auroc"] is None else f", AUROC of right against wrong {c['auroc']:.3f}"
        lines += ["", f"Confidences of {c['relations']:,} relations: calibration error {c['ece']:.3f}{area}"]
    return "\n".join(lines)


def with_interval(found: Mapping, name: str) -> str:
    """A figure as text, with its interval if there is one."""
    if name not in found["intervals"]:
        return f"{found[name]:.3f}"
    low, high = found["intervals"][name]
    return f"{found[name]:.3f} [{low:.3f}, {high:.3f}]"


def _cells(row: Mapping) -> str:
    return (
        f"{row['reference']:>10,}{row['predicted']:>10,}{row['right']:>8,}{row['precision']:>10.3f}"
        f"{row['recall']:>8.3f}{row['f1']:>8.3f}"
    )
