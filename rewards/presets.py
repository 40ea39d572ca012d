"""Named reward sets: which terms count, and how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rewards import r1_sgg, terms
from rewards.terms import GraphScore
from sgrl.errors import SgrlError, UsageError, suggest

FAMILIES: dict[str, dict[str, tuple[float, float]]] = {"scenegraphvlm": terms.TERMS, "r1-sgg": r1_sgg.TERMS}
"""Families of terms, each term with its least and its greatest value. Both have a `format`, an `object_class` and an
`object_box`, but not the same ones."""


@dataclass(frozen=True)
class Preset:
    """A weighted sum of terms of one family.

    Penalties are negative terms, so their weights are positive like all others.

    Args:
        name: for messages and logs.
        weights: term -> weight; terms left out count for nothing.
        family: "scenegraphvlm" or "r1-sgg".

    Raises:
        SgrlError: an unknown family or term, or a weight that is not a number.
    """

    name: str
    weights: Mapping[str, float]
    family: str = "scenegraphvlm"

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UsageError(f"unknown reward family {self.family!r}{suggest(self.family, FAMILIES)}")
        for term, weight in self.weights.items():
            check_term(term, self.family)
            if not isinstance(weight, int | float) or weight != weight or abs(weight) == float("inf"):
                raise SgrlError(
                    f"preset {self.name!r}: the weight of {term} must be a finite number, found {weight!r}"
                )
        object.__setattr__(self, "weights", dict(self.weights))

    def total(self, score: GraphScore) -> float:
        """The weighted sum of a score's terms; 0 for an invalid text in the family scenegraphvlm."""
        try:
            return float(sum(weight * score.terms[term] for term, weight in self.weights.items()))
        except KeyError as error:
            raise SgrlError(
                f"preset {self.name!r} needs the term {error.args[0]!r}, but the score has {', '.join(score.terms)}; "
                f"score with GraphScorer(..., preset={self.name!r})"
            ) from None

    def maximum(self, relations: bool = True) -> float:
        """The total of a perfect answer to a reference with or without relations.

        Without relations in the reference the relation terms are 0 for the perfect answer too, so that groups of such
        images teach nothing about relations but their absence.
        """
        return float(
            sum(
                weight * FAMILIES[self.family][term][1]
                for term, weight in self.weights.items()
                if relations or term in ("format", "object_class", "object_box")
            )
        )


def check_term(term: str, family: str) -> None:
    """Raises SgrlError unless the family has the term."""
    if term not in FAMILIES[family]:
        raise UsageError(f"unknown reward term {term!r} in family {family!r}{suggest(term, FAMILIES[family])}")


SCENEGRAPHVLM = Preset(
    "full",
    {
        "format": 0.5,
        "object_class": 1.5,
        "object_box": 1.5,
        "relation_recall": 3.0,
        "relation_precision": 1.0,
        "relation_f1": 2.0,
        "object_hallucination": 1.0,
        "relation_hallucination": 1.0,
    },
)
"""SceneGraphVLM, table 5. 9.5 for a perfect graph."""

SCENEGRAPHVLM_RECALL = Preset(
    "recall-only", {"format": 0.5, "object_class": 1.5, "object_box": 1.5, "relation_recall": 3.0}
)
"""The same without precision, F1 and penalties, also called "base": what the paper's precision terms are compared
with (table 9). At most 6.5."""

SCENEGRAPHVLM_BALANCED = Preset(
    "balanced", {**SCENEGRAPHVLM_RECALL.weights, "relation_precision": 1.0, "relation_f1": 2.0}
)
"""`base` with precision and F1 of relations, without the penalties for hallucinations (table 9). At most 9.5."""

R1_SGG = Preset(
    "r1-sgg",
    {
        "format": 1.0,
        "object_class": 2.0,
        "object_box": 2.0,
        "hard_recall": 5.0,
        "hard_recall_relax": 5.0,
        "soft_recall": 5.0,
    },
    family="r1-sgg",
)
"""R1-SGG with all its terms. Its runs train on one of the three recalls at a time: see the three presets below."""


def _r1_sgg(recall: str) -> Preset:
    weights = {term: R1_SGG.weights[term] for term in ("format", "object_class", "object_box", recall)}
    return Preset(f"r1-sgg-{recall.replace('_', '-')}", weights, family="r1-sgg")


R1_SGG_HARD = _r1_sgg("hard_recall")
R1_SGG_RELAX = _r1_sgg("hard_recall_relax")
R1_SGG_SOFT = _r1_sgg("soft_recall")

PRESETS: dict[str, Preset] = {
    "base": SCENEGRAPHVLM_RECALL,
    **{
        preset.name: preset
        for preset in (
            SCENEGRAPHVLM_RECALL,
            SCENEGRAPHVLM_BALANCED,
            SCENEGRAPHVLM,
            R1_SGG,
            R1_SGG_HARD,
            R1_SGG_RELAX,
            R1_SGG_SOFT,
        )
    },
}


def get_preset(preset: str | Preset) -> Preset:
    """A preset by its name in PRESETS: "full", "balanced", "base", "r1-sgg-hard-recall", ...

    Raises:
        SgrlError: an unknown name, with the nearest one.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise UsageError(f"unknown reward preset {preset!r}{suggest(preset, PRESETS)}")
    return PRESETS[preset]


def check_weights(weights: Sequence[float], names: Sequence[str]) -> None:
    """Raises SgrlError unless there is a finite weight for each of the names, and not all are zero."""
    if len(weights) != len(names):
        raise SgrlError(
            f"reward_weights has {len(weights)} numbers, but reward names {len(names)} terms ({', '.join(names)}); "
            "give one for each, in this order, or remove the line"
        )
    if not all(math.isfinite(weight) for weight in weights) or not any(weights):
        raise SgrlError(
            f"reward_weights {list(weights)} must be finite and not all zero; penalties are negative terms"
        )
