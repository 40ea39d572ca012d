"""How often a detector corrects, or spoils, what it was told before: its priors.

Of each reference relation it is asked whether the prior has it and whether the detector's ranking has it. Corrected is
the share that the detector has, among those that the prior lacks; spoiled the share that it lacks, among those that
the prior has. VOST-SGG gives such shares without their denominators; these are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rewards.metrics.action_genome import ActionGenomeRecall
from sgrl.vocabulary import Vocabulary

RARE = (
    "carrying",
    "covered_by",
    "drinking_from",
    "eating",
    "have_it_on_the_back",
    "twisting",
    "wiping",
    "writing_on",
)
"""Action Genome's eight rarest predicates (the paper's table 4)."""

TOP = 20
"""How many of the detector's best relations count."""


class CorrectedPriors:
    """Counts frame by frame.

    Args:
        vocabulary: with three groups. task: what the detector was given, see `ActionGenomeRecall`: boxes of the prior
            are brought to the reference's where those were given.
    """

    def __init__(self, vocabulary: Vocabulary, task: str = "sgdet"):
        self._ranked = ActionGenomeRecall(constraint="with", ks=(TOP,), vocabulary=vocabulary)
        self._told = ActionGenomeRecall(constraint="no", ks=(10_000,), task=task, vocabulary=vocabulary)
        self._counts: Counter[tuple[bool, bool, bool]] = Counter()
        self.frames = 0

    def add(self, prediction: Any, prior: Any, reference: Any, width: int, height: int) -> None:
        """Count a frame: a ScoredGraph, what was told (a SceneGraph), and the reference (text or graph)."""
        told = self._told.found(prior, reference, width, height)
        said = self._ranked.found(prediction, reference, width, height)
        self.frames += 1
        for (predicate, before), (_, after) in zip(told, said, strict=True):
            self._counts[predicate in RARE, before, after] += 1

    def compute(self) -> dict[str, Any]:
        """frames, top, and for "rare", "other" and "all" predicates: prior_right and prior_wrong (relations),
        corrected and spoiled (shares of these; 0 where there are none)."""
        found: dict[str, Any] = {"frames": self.frames, "top": TOP}
        for name, kinds in (("rare", (True,)), ("other", (False,)), ("all", (True, False))):
            table = {
                (before, after): sum(self._counts[kind, before, after] for kind in kinds)
                for before in (True, False)
                for after in (True, False)
            }
            right, wrong = (table[before, True] + table[before, False] for before in (True, False))
            found[name] = {
                "prior_right": right,
                "prior_wrong": wrong,
                "corrected": table[False, True] / max(wrong, 1),
                "spoiled": table[True, False] / max(right, 1),
            }
        return found


def rare_table(
    per_predicate: Mapping[str, Mapping[str, float]], vocabulary: Vocabulary
) -> dict[str, dict[str, float]]:
    """The rows of the rare predicates, of those that the vocabulary has."""
    known = [label for label in vocabulary.predicates if label in RARE]
    return {label: dict(per_predicate[label]) for label in known if label in per_predicate}
