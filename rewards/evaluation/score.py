"""`python -m rewards score PREDICTIONS --reference DATASET`: the figures of any file of predictions.

PREDICTIONS is JSON lines or Parquet with the columns image_id and prediction (the text that a model wrote), or the
folder of a run. With confidences, one per relation, their calibration is shown and Recall@K is ranked by them too.

An image without a prediction is a failure and counts as zero. Predictions for unknown images, second predictions for
an image and damaged lines are counted, named and left out; --strict makes each of these an error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rewards.evaluation.evaluation import Evaluation, differences
from rewards.evaluation.files import Predictions, References, joined, predicate_frequency, training_graphs
from rewards.evaluation.tables import at_ks, recall_table, table
from rewards.metrics.action_genome import CONSTRAINTS, TASKS, ActionGenomeRecall
from rewards.metrics.action_genome import PROTOCOLS as AG_PROTOCOLS
from rewards.metrics.recall import SceneGraphRecall, triplets
from rewards.metrics.video import PROTOCOLS as VIDEO_PROTOCOLS
from rewards.metrics.video import VideoRecall, videos_of_rows
from rewards.reading import PROTOCOLS
from sgrl.errors import SgrlError, suggest
from sgrl.files import atomic_path
from sgrl.text import CODECS, Codec, get_codec

METRICS = {"strict": PROTOCOLS, "recall": PROTOCOLS, "ag-recall": AG_PROTOCOLS, "video-recall": VIDEO_PROTOCOLS}
"""--metric -> its --protocol."""

PROBLEMS = {
    "missing": "no prediction (they count as failures, zero in every figure)",
    "unknown": "predictions for images that the reference lacks (left out)",
    "duplicates": "second predictions for an image (the first one counts)",
    "damaged": "damaged lines (left out)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("predictions", help="file with image_id and prediction, .jsonl or .parquet, or the folder of a run")
    add("--reference", required=True, metavar="DATASET", help="folder or file of Parquet with image_id and solution")
    add("--split", default="test", help="default: %(default)s")
    add("--limit", type=int, metavar="N", help="the first N images only")
    add("--metric", default="strict", choices=METRICS, help="default: %(default)s")
    add("--protocol", default="default", help="'published' and others reproduce published figures, see docs")
    add("--constraint", default="with", choices=CONSTRAINTS, help="ag-recall: which relations enter the ranking")
    add("--task", default="sgdet", choices=TASKS, help="ag-recall: what the model is given")
    add("--format", choices=CODECS, help="layout of the predictions, if not that of the references")
    add("--against", metavar="PREDICTIONS", help="strict: paired differences to other predictions")
    add("--strict", action="store_true", help="stop at predictions that are missing, unknown, double or damaged")
    add("--output", type=Path, metavar="FILE", help="write the figures as JSON")


def run(options: argparse.Namespace) -> str:
    """Score, write --output, and return what to print.

    Raises:
        SgrlError: something cannot be scored.
    """
    protocols = METRICS[options.metric]
    if options.protocol not in protocols:
        hint = suggest(options.protocol, protocols)
        raise SgrlError(f"--metric {options.metric} has no protocol {options.protocol!r}{hint}")
    if options.limit is not None and options.limit < 1:
        raise SgrlError(f"--limit is {options.limit}, expected at least 1")
    if options.against and options.metric != "strict":
        raise SgrlError("--against compares strict figures; leave out --metric")
    references = References(options.reference, options.split, options.limit)
    codec = get_codec(options.format or references.codec)
    if codec.grouped != references.codec.grouped:
        raise SgrlError(
            f"predictions in the layout {codec.name!r} cannot be compared with references in "
            f"{references.codec.name!r}: only one of them has groups of predicates"
        )
    with Predictions(options.predictions, references) as predictions:
        if options.metric == "strict":
            found, text = _strict(options, predictions, references, codec)
        elif options.metric == "video-recall":
            found, text = _videos(options, predictions, references, codec)
        else:
            found, text = _ranked(options, predictions, references, codec)
    found = {"metric": options.metric, "protocol": options.protocol} | found
    if options.output:
        with atomic_path(options.output) as path:
            path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return text


def _strict(options, predictions: Predictions, references: References, codec) -> tuple[dict, str]:
    frequency = predicate_frequency(references.path)
    evaluation = Evaluation(codec, protocol=options.protocol, frequency=frequency)
    images = _count(predictions, references, [evaluation], options.strict)
    found = images | evaluation.compute()
    text = [*_notices(images), table(found)]
    if options.against:
        other = Evaluation(codec, protocol=options.protocol, frequency=frequency)
        with Predictions(options.against, references) as others:
            theirs = _count(others, references, [other], options.strict)
        found["differences"] = differences(evaluation, other)
        found["against"] = theirs
        text += ["", *_notices(theirs), f"Difference to {options.against}, paired by image:"]
        for name, (difference, low, high) in found["differences"].items():
            text.append(f"{name:<28}{difference:+.3f} [{low:+.3f}, {high:+.3f}]")
    return found, "\n".join(text)


class _Ranked:
    """A recall, with relations ranked by confidence or in the order of writing."""

    def __init__(self, recall, by_confidence: bool):
        self.recall, self.by_confidence = recall, by_confidence
        self.used = False

    def add_all(self, rows: Iterable[Mapping]) -> None:
        for row in rows:
            self._add(row)

    def _add(self, row: Mapping) -> None:
        sample = (row["prediction"], row["solution"], row["width"], row["height"])
        confidences = row.get("confidence") if self.by_confidence else None
        if isinstance(confidences, list) and row["prediction"] is not None:
            confidences = [value if type(value) in (int, float) else None for value in confidences]
            try:
                self.recall.add(*sample, confidences=confidences)
                self.used |= any(value is not None for value in confidences)
                return
            except SgrlError:  # not one for each relation: then in the order of writing
                pass
        self.recall.add(*sample)


def _ranked(options, predictions: Predictions, references: References, codec) -> tuple[dict, str]:
    if options.metric == "ag-recall":
        if codec.name != "toon-pairs":
            raise SgrlError(
                f"--metric ag-recall is for Action Genome's layout toon-pairs; these texts are {codec.name!r}: use "
                "--metric recall"
            )
        settings = {"constraint": options.constraint, "task": options.task, "vocabulary": references.vocabulary}
        make = ActionGenomeRecall
    else:
        known = {triplet for graph in training_graphs(references.path) for triplet in triplets(graph)}
        settings = {"codec": codec, "vocabulary": references.vocabulary, "training_triplets": known or None}
        make = SceneGraphRecall
    written = _Ranked(make(**settings, protocol=options.protocol), by_confidence=False)
    ranked = _Ranked(make(**settings, protocol=options.protocol), by_confidence=True)
    images = _count(predictions, references, [written, ranked], options.strict)
    found = images | {"by_writing": written.recall.compute(), "predicates": written.recall.per_predicate()}
    if ranked.used:
        found |= {"by_confidence": ranked.recall.compute(), "predicates": ranked.recall.per_predicate()}
    return found, "\n".join([*_notices(images), recall_table(found), f"Protocol: {options.protocol}."])


class _Videos:
    """The recall of videos whose graphs were written frame by frame."""

    def __init__(self, codec: Codec, protocol: str):
        self.codec, self.recall = codec, VideoRecall(protocol=protocol)

    def add_all(self, rows: Iterable[Mapping]) -> None:
        for _, prediction, reference in videos_of_rows(rows, self.codec):
            self.recall.add(prediction, reference)


def _videos(options, predictions: Predictions, references: References, codec) -> tuple[dict, str]:
    counted = _Videos(codec, options.protocol)
    images = _count(predictions, references, [counted], options.strict)
    found = counted.recall.compute()
    if not found["videos"]:
        raise SgrlError(
            f"{references.path} has no videos (columns video_id and frame), which --metric video-recall is for: use "
            "--metric recall"
        )
    lines = [
        *at_ks("boxes linked to tubes", found),
        "",
        f"mean average precision by volume {found['volume_map']:.4f}",
        f"{found['videos']:,} videos with {found['relations_reference']:,} relations of {found['predicates']} "
        f"predicates; {found['videos_without_relations']:,} references without relations are in no recall",
        f"Protocol: {options.protocol}.",
    ]
    return images | found | {"per_predicate": counted.recall.per_predicate()}, "\n".join([*_notices(images), *lines])


def _count(predictions: Predictions, references: References, counters: list, strict: bool) -> dict:
    """Feed the counters; returns what was found of the input: file, and of each of PROBLEMS the count and examples."""
    missing = predictions.missing(references)
    problems = {"missing": missing, **{name: getattr(predictions, name) for name in list(PROBLEMS)[1:]}}
    if strict:
        for name, problem in problems.items():
            if problem.count:
                what = PROBLEMS[name].partition(" (")[0]
                raise SgrlError(f"{predictions.path}: {problem.count:,} x {what}: {problem}; --strict allows none")
    for counter in counters:
        counter.add_all(joined(predictions, references))
    found = {name: {"count": problem.count, "examples": problem.examples} for name, problem in problems.items()}
    return {"input": {"predictions": str(predictions.path), "reference": str(references.path), **found}}


def _notices(found: Mapping) -> list[str]:
    lines = []
    for name, what in PROBLEMS.items():
        problem = found["input"][name]
        if problem["count"]:
            more = ", ..." if problem["count"] > len(problem["examples"]) else ""
            lines.append(f"Note: {problem['count']:,} {what}: {', '.join(problem['examples'])}{more}")
    return [f"{found['input']['predictions']}:", *lines, ""] if lines else []
