"""The figures of a detector of Action Genome: rankings with and without constraint, rare predicates, its priors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rewards.evaluation.files import References
from rewards.evaluation.scored import Ranking, ScoredPredictions, rows_of
from rewards.metrics import ActionGenomeRecall, Metric, Settings
from rewards.metrics.corrected import CorrectedPriors, rare_table
from sgrl.graph import SceneGraph
from sgrl.progress import Progress
from sgrl.vocabulary import Vocabulary

CONSTRAINTS = ("with", "no")
PROTOCOLS = ("oed", "oed-nms", "oed-published", "sttran", "default")
SHOWN = (10, 20, 50)


def detector_figures(
    scores: str | Path,
    references: References,
    protocol: str,
    task: str = "sgdet",
    prior: Callable[[str], SceneGraph | None] | None = None,
) -> dict[str, Any]:
    """What Action Genome's metrics say of scored predictions.

    Args:
        scores: folder, see sgrl.scores. protocol: of `ActionGenomeRecall`. task: what the detector was given.
        prior: gives what was told of a frame, by its image_id; None where nothing was.

    Returns: protocol, task, units (videos, or images), missing; with and no (figures, per_predicate, intervals, rare);
    and, with a prior, priors: see `CorrectedPriors`.
    """
    with ScoredPredictions(scores, references) as predictions:
        vocabulary: Vocabulary = predictions.vocabulary
        settings = {
            constraint: Settings(references.codec, protocol, vocabulary, options={"constraint": constraint})
            for constraint in CONSTRAINTS
        }
        corrected = CorrectedPriors(vocabulary, task)
        found: dict[str, Any] = {"protocol": protocol, "task": task}
        for constraint in CONSTRAINTS:
            ranking = Ranking([ActionGenomeRecall], partial(_settings, settings[constraint]))
            rows: Iterable[Mapping[str, Any]] = rows_of(predictions, references, references.codec)
            if prior is not None and constraint == "with":
                rows = _beside(references.keys, rows, corrected, prior)
            progress = Progress(f"recall, {constraint} constraint", len(references.keys), "image")
            ranking.add_all(progress.over(rows))
            figures = ranking.compute()[ActionGenomeRecall.name]
            found[constraint] = figures | {"rare": rare_table(figures["per_predicate"], vocabulary)}
            found["units"] = {"videos" if ranking.of_videos else "images": ranking.units}
        found["missing"] = predictions.missing(references).count
        if corrected.frames:
            found["priors"] = corrected.compute()
    return found


def _settings(chosen: Settings, kind: type[Metric]) -> Settings:
    return chosen


def _beside(
    keys: Sequence[tuple[str, str]],
    rows: Iterable[Mapping[str, Any]],
    corrected: CorrectedPriors,
    prior: Callable[[str], SceneGraph | None],
) -> Iterator[Mapping[str, Any]]:
    """The same rows, those with a prior counted."""
    for (_, image_id), row in zip(keys, rows, strict=True):
        told = prior(image_id)
        if told is not None and row["prediction"] is not None:
            corrected.add(row["prediction"], told, row["solution"], row["width"], row["height"])
        yield row


def lines(found: Mapping[str, Any]) -> list[str]:
    """The figures as text."""
    (what, units), *_ = found["units"].items()
    head = " ".join(f"{f'@{k}':>8}" for k in SHOWN)
    out = [f"{'Action Genome, %':<34}{head}"]
    for constraint, words in (("with", "with constraint"), ("no", "without constraint")):
        figures, ends = found[constraint], found[constraint]["intervals"]
        for name, called in (
            ("recall", "recall"), ("mean_recall", "mean recall, by frame"),
            ("pooled_mean_recall", "mean recall, by relation"),
        ):  # fmt: skip
            values = " ".join(f"{100 * figures[f'{name}@{k}']:8.1f}" for k in SHOWN)
            called = f"{words}, recall" if name == "recall" else f"  {called}"
            out.append(f"{called:<34}{values}")
            if name == "recall" and all(f"{name}@{k}" in ends for k in SHOWN):
                spans = ", ".join("{:.1f} to {:.1f}".format(*(100 * x for x in ends[f"{name}@{k}"])) for k in SHOWN)
                out.append(f"    95 %: {spans}")
    rare = found["with"]["rare"]
    if rare:
        out += ["", f"{'rare predicates, recall':<34}{head}   relations"]
        for label, row in ((label, row) for label, row in rare.items() if row["relations"]):
            values = " ".join(f"{100 * row[f'recall@{k}']:8.1f}" for k in SHOWN)
            out.append(f"  {label:<32}{values}{row['relations']:12,}")
    if "priors" in found:
        said = found["priors"]
        out += ["", f"{'what was told, and became of it':<34}corrected  of wrong  spoiled  of right"]
        for kind in ("rare", "other", "all"):
            one = said[kind]
            out.append(
                f"  {kind:<32}{100 * one['corrected']:8.1f} %{one['prior_wrong']:10,}{100 * one['spoiled']:7.1f} %"
                f"{one['prior_right']:10,}"
            )
    missing = f"; {found['missing']:,} frames have no prediction" if found["missing"] else ""
    return [*out, "", f"Protocol {found['protocol']}, task {found['task']}, {units:,} {what}{missing}."]
