"""`python -m rewards score PREDICTIONS --reference DATASET`: the figures of any file of predictions.

PREDICTIONS is JSON lines or Parquet with the columns image_id and prediction (the text that a model wrote), or the
folder of a run. With confidences, one per relation, their calibration is shown and Recall@K is ranked by them too.

An image without a prediction is a failure and counts as zero. Predictions for unknown images, second predictions for
an image and damaged lines are counted, named and left out; --strict makes each of these an error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from rewards.evaluation.counters import Counter, counter
from rewards.evaluation.evaluation import differences
from rewards.evaluation.files import Predictions, References, joined, predicate_frequency, training_graphs
from rewards.metrics import METRICS, Settings
from sgrl.errors import SgrlError, suggest
from sgrl.files import atomic_path
from sgrl.text import CODECS, get_codec

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
    for metric in METRICS.values():
        for name, option in metric.options.items():
            words = f"{metric.name}: {option.help} (default: %(default)s)"
            add(f"--{name.replace('_', '-')}", default=option.choices[0], choices=option.choices, help=words)
    add("--format", choices=CODECS, help="layout of the predictions, if not that of the references")
    add("--against", metavar="PREDICTIONS", help="strict: paired differences to other predictions")
    add("--strict", action="store_true", help="stop at predictions that are missing, unknown, double or damaged")
    add("--output", type=Path, metavar="FILE", help="write the figures as JSON")


def run(options: argparse.Namespace) -> str:
    """Score, write --output, and return what to print.

    Raises:
        SgrlError: something cannot be scored.
    """
    metric = METRICS[options.metric]
    if options.protocol not in metric.protocols:
        hint = suggest(options.protocol, metric.protocols)
        raise SgrlError(f"--metric {options.metric} has no protocol {options.protocol!r}{hint}")
    if options.limit is not None and options.limit < 1:
        raise SgrlError(f"--limit is {options.limit}, expected at least 1")
    if options.against and not metric.matches:
        raise SgrlError(f"--against is not for --metric {options.metric}; leave out --metric")
    references = References(options.reference, options.split, options.limit)
    codec = get_codec(options.format or references.codec)
    if codec.grouped != references.codec.grouped:
        raise SgrlError(
            f"predictions in the layout {codec.name!r} cannot be compared with references in "
            f"{references.codec.name!r}: only one of them has groups of predicates"
        )
    settings = Settings(
        codec,
        options.protocol,
        references.vocabulary,
        frequency=lambda: predicate_frequency(references.path),
        training=lambda: training_graphs(references.path),
        options={name: getattr(options, name) for name in metric.options},
    )
    counted, found = counter(metric, settings), {"metric": options.metric, "protocol": options.protocol}
    with Predictions(options.predictions, references) as predictions:
        found |= _count(predictions, references, counted, options.strict)
    found |= counted.compute()
    lines = [*_notices(found), *counted.lines(found)]
    if options.against:
        other = counter(metric, settings)
        with Predictions(options.against, references) as predictions:
            found["against"] = _count(predictions, references, other, options.strict)
        found["differences"] = differences(counted, other)
        lines += ["", *_notices(found["against"]), f"Difference to {options.against}, paired by image:"]
        for name, (difference, low, high) in found["differences"].items():
            lines.append(f"{name:<28}{difference:+.3f} [{low:+.3f}, {high:+.3f}]")
    if options.output:
        with atomic_path(options.output) as path:
            path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return "\n".join(lines)


def _count(predictions: Predictions, references: References, counted: Counter, strict: bool) -> dict:
    """Feed the counter; returns what was found of the input: file, and of each of PROBLEMS the count and examples."""
    missing = predictions.missing(references)
    problems = {"missing": missing, **{name: getattr(predictions, name) for name in list(PROBLEMS)[1:]}}
    if strict:
        for name, problem in problems.items():
            if problem.count:
                what = PROBLEMS[name].partition(" (")[0]
                raise SgrlError(f"{predictions.path}: {problem.count:,} x {what}: {problem}; --strict allows none")
    counted.add_all(joined(predictions, references))
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
