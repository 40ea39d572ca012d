"""What `rewards score` feeds with rows, whichever metric it runs: by what the metric can do, never by which it is."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

from rewards.evaluation.evaluation import Evaluation
from rewards.evaluation.tables import at_ks, ranking_lines
from rewards.metrics import Metric, SceneGraphMetrics, Settings
from sgrl.errors import SgrlError, UsageError


class Counter(Protocol):
    """Takes rows of predictions with their references, and gives figures and how they read."""

    def add_all(self, rows: Iterable[Mapping[str, Any]]) -> None: ...

    def compute(self) -> dict[str, Any]: ...

    def lines(self, found: Mapping[str, Any]) -> list[str]: ...


def counter(kind: type[Metric], settings: Settings) -> Counter:
    """What counts with a metric of this kind.

    Raises:
        SgrlError: it is not for such texts or options.
    """
    if kind.matches:
        return Evaluation(settings.codec, metric=cast(SceneGraphMetrics, kind.of(settings)))  # what `matches` says
    return Rankings(kind, settings) if kind.ranks else Figures(kind, settings)


class Figures:
    """One metric, as it is."""

    def __init__(self, kind: type[Metric], settings: Settings):
        self.metric, self.settings = kind.of(settings), settings

    def add_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count all samples.

        Raises:
            SgrlError: there is none.
        """
        samples = 0
        for sample in self.metric.samples_of(rows, self.settings.codec):
            self.metric.add(*sample)
            samples += 1
        if not samples:
            raise UsageError(f"the data set has no {self.metric.needs}, which --metric {self.metric.name} is for")

    def compute(self) -> dict[str, Any]:
        return self.metric.compute() | {"per_predicate": self.metric.per_predicate()}

    def lines(self, found: Mapping[str, Any]) -> list[str]:
        ranked = [*at_ks(self.metric.title, found), ""] if any("@" in name for name in found) else []
        return [*ranked, *self.metric.notes(found), f"Protocol: {self.settings.protocol}."]


class Rankings:
    """A metric of ranked relations twice: by the confidence of relations, and in the order of writing."""

    def __init__(self, kind: type[Metric], settings: Settings):
        self.written = kind.of(settings)
        self.sure = copy.deepcopy(self.written)  # what it has read of the training split is read once
        self.settings = settings
        self.confident = False

    def add_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            (sample,) = self.written.samples_of([row], self.settings.codec)
            self.written.add(*sample)
            self._add_sure(row, sample)

    def _add_sure(self, row: Mapping[str, Any], sample: tuple[Any, ...]) -> None:
        given = row.get("confidence")
        if isinstance(given, list) and row["prediction"] is not None:
            confidences = [value if type(value) in (int, float) else None for value in given]
            try:
                self.sure.add(*sample, confidences=confidences)
                self.confident |= any(value is not None for value in confidences)
                return
            except SgrlError:  # not one for each relation: then in the order of writing
                pass
        self.sure.add(*sample)

    def compute(self) -> dict[str, Any]:
        """by_writing, by_confidence (only where there are confidences), and predicates, by confidence if possible."""
        found = {"by_writing": self.written.compute(), "predicates": self.written.per_predicate()}
        if self.confident:
            found |= {"by_confidence": self.sure.compute(), "predicates": self.sure.per_predicate()}
        return found

    def lines(self, found: Mapping[str, Any]) -> list[str]:
        notes = self.written.notes(found["by_writing"])
        return [*ranking_lines(found, notes), f"Protocol: {self.settings.protocol}."]
