"""`sgrl score PREDICTIONS [--reference DATASET]`: the figures of any file of predictions.

PREDICTIONS is JSON lines, JSON, CSV or Parquet with the columns image_id and prediction (the text that a model wrote),
or the folder of a run. Files of SceneGraphVLM (content, predict) and R1-SGG (response, gt_objects; a folder of JSON)
are read as they are, others with --map COLUMN=WHAT; where the reference stands beside the prediction, no --reference
is needed. With confidences, one per relation, their calibration is shown and Recall@K is ranked by them too.

PREDICTIONS may also be a folder of scored predictions (sgrl.scores). --metrics NAME,NAME gives several rankings of
either kind at once, with 95 % intervals over images or videos.

An image without a prediction is a failure and counts as zero. Predictions for unknown images, second predictions for
an image and damaged lines are counted, named and left out; --strict makes each of these an error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from rewards.evaluation.beside import FileReferences
from rewards.evaluation.counters import Counter, counter
from rewards.evaluation.evaluation import Evaluation, differences
from rewards.evaluation.files import AnyReferences, Predictions, Problem, joined, predicate_frequency, training_graphs
from rewards.evaluation.scored import Ranking, ScoredPredictions, paired, rows_of
from rewards.evaluation.sources import Sources
from rewards.evaluation.sources import add_arguments as add_files
from rewards.metrics import METRICS, Metric, Settings
from sgrl.arguments import Parser
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.files import atomic_path
from sgrl.progress import Progress
from sgrl.scores import holds_scores
from sgrl.text import CODECS, Codec, get_codec
from sgrl.vocabulary import Vocabulary

PROBLEMS = {
    "missing": "no prediction (they count as failures, zero in every figure)",
    "unknown": "predictions for images that the reference lacks (left out)",
    "duplicates": "second predictions for an image (the first one counts)",
    "damaged": "damaged lines (left out)",
    "unreadable": "rows without a readable reference (left out)",
    "doubles": "second references for an image (the first one counts)",
}

CHANGED = "made from another data set than the references, or from another state of it (by its files' fingerprint)"


def parser() -> Parser:
    parser = Parser(__doc__, "python -m rewards score", {"--format": "--codec", "--task": "--setting"})
    add_files(parser)
    add = parser.add_argument
    add("--metric", default="strict", choices=METRICS, help="default: %(default)s")
    add("--metrics", metavar="NAME,NAME", help="rankings in one table: recall, ag-recall, video-recall")
    add("--protocol", default="default", help="'published' and others reproduce published figures, see docs")
    for metric in METRICS.values():
        for name, option in metric.options.items():
            words = f"{metric.name}: {option.help} (default: %(default)s)"
            spelling = (
                "--setting" if name == "task" else f"--{name.replace('_', '-')}"
            )  # --task: what a model is asked
            add(spelling, dest=name, default=option.choices[0], choices=option.choices, help=words)
    add("--codec", choices=CODECS, help="layout of the predictions, if not that of the references")
    add("--strict", action="store_true", help="stop at predictions that are missing, unknown, double or damaged")
    add("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    print(run(parser().parse_args(arguments)))


def run(options: argparse.Namespace) -> str:
    """Score, write --output, and return what to print.

    Raises:
        SgrlError: something cannot be scored.
    """
    scored = options.metrics is not None or holds_scores(options.predictions)
    kinds = _kinds((options.metrics or options.metric).split(","), options.protocol, scored)
    if options.against and not scored and not kinds[0].matches:
        raise UsageError(f"--against is not for --metric {options.metric}; leave it out, or say --metrics")
    given = Sources(options)
    references = given.references
    codec = get_codec(options.codec or references.codec)
    if codec.grouped != references.codec.grouped:
        raise SgrlError(
            f"predictions in the layout {codec.name!r} cannot be compared with references in "
            f"{references.codec.name!r}: only one of them has groups of predicates"
        )

    def settings(kind: type[Metric], vocabulary: Vocabulary | None = references.vocabulary) -> Settings:
        return Settings(
            codec,
            options.protocol,
            vocabulary,
            frequency=lambda: predicate_frequency(references.path),
            training=lambda: training_graphs(references.path),
            options={name: getattr(options, name) for name in kind.options},
        )

    if scored:
        found, lines = _rankings(options, kinds, settings, given, codec)
    else:
        found, lines = _figures(options, kinds[0], settings(kinds[0]), given)
    if options.output:
        with atomic_path(options.output) as path:
            path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return "\n".join(lines)


def _kinds(names: Sequence[str], protocol: str, scored: bool) -> list[type[Metric]]:
    """The metrics of these names. Raises SgrlError for those that are not for what is scored."""
    for name in names:
        if name not in METRICS:
            raise UsageError(f"--metrics has {name!r}{suggest(name, METRICS)}")
        if scored and METRICS[name].matches:
            others = ", ".join(other for other, metric in METRICS.items() if not metric.matches)
            raise UsageError(f"the metric {name!r} counts texts; scored predictions are ranked: --metrics {others}")
        if protocol not in METRICS[name].protocols:
            hint = suggest(protocol, METRICS[name].protocols)
            raise UsageError(f"--metric {name} has no protocol {protocol!r}{hint}")
    return [METRICS[name] for name in dict.fromkeys(names)]


def _figures(
    options: argparse.Namespace, metric: type[Metric], settings: Settings, given: Sources
) -> tuple[dict[str, Any], list[str]]:
    """What one metric says of texts."""
    counted, found = counter(metric, settings), {"metric": options.metric, "protocol": options.protocol}
    with given.read(options.predictions) as predictions:
        found |= _count(predictions, given.references, counted, joined, options.strict)
    found |= counted.compute()
    lines = [*_notices(found, given), *counted.lines(found)]
    if options.against:
        other = counter(metric, settings)
        with given.read(options.against) as predictions:
            found["against"] = _count(predictions, given.references, other, joined, options.strict)
        found["differences"] = differences(cast(Evaluation, counted), cast(Evaluation, other))  # see `run`
        lines += ["", *_notices(found["against"], given), f"Difference to {options.against}, paired by image:"]
        lines += _difference_lines(found["differences"])
    return found, lines


def _rankings(
    options: argparse.Namespace,
    kinds: Sequence[type[Metric]],
    settings: Callable[..., Any],
    given: Sources,
    codec: Codec,
) -> tuple[dict[str, Any], list[str]]:
    """What several metrics say of scored predictions, or of texts by their confidences."""

    def ranked(path: str) -> tuple[Ranking, dict[str, Any]]:
        with given.read(path) as predictions:
            vocabulary = getattr(predictions, "vocabulary", given.references.vocabulary)
            counted = Ranking(kinds, lambda kind: settings(kind, vocabulary))
            return counted, _count(
                predictions, given.references, counted, partial(rows_of, codec=codec), options.strict
            )

    counted, found = ranked(options.predictions)
    found = {"metrics": [kind.name for kind in kinds], "protocol": options.protocol, **found}
    found["rankings"] = counted.compute()
    lines = [*_notices(found, given), *counted.lines(found["rankings"])]
    if options.against:
        other, found["against"] = ranked(options.against)
        found["differences"] = paired(counted, other)
        lines += ["", *_notices(found["against"], given), f"Difference to {options.against}, paired:"]
        for name, figures in found["differences"].items():
            shown = {key: value for key, value in figures.items() if "@" in key}
            lines += [f"{name}:", *_difference_lines(shown)]
    return found, lines


def _difference_lines(found: Mapping[str, tuple[float, float, float]]) -> list[str]:
    return [f"{name:<28}{value:+.3f} [{low:+.3f}, {high:+.3f}]" for name, (value, low, high) in found.items()]


def _count(
    predictions: Predictions | ScoredPredictions,
    references: AnyReferences,
    counted: Counter | Ranking,
    rows: Callable[[Predictions | ScoredPredictions, AnyReferences], Iterable[Mapping[str, Any]]],
    strict: bool,
) -> dict[str, Any]:
    """Feed the counter with the rows of both; returns what was found of the input: file, and each of PROBLEMS with
    examples."""
    changed = getattr(predictions, "changed", False)
    if changed and strict:
        raise SgrlError(f"{predictions.path}: {CHANGED}; --strict does not allow it")
    _check_strict(predictions, references, strict)
    progress = Progress("scoring", len(references.keys), "image")
    counted.add_all(progress.over(rows(predictions, references)))
    _check_strict(predictions, references, strict)  # some references are read only now
    problems = _problems(predictions, references)
    found = {name: {"count": problem.count, "examples": problem.examples} for name, problem in problems.items()}
    about = {"predictions": str(predictions.path), "reference": str(references.path), "changed": changed}
    return {"input": about | found}


def _problems(predictions: Predictions | ScoredPredictions, references: AnyReferences) -> dict[str, Problem]:
    problems = {"missing": predictions.missing(references)}
    problems |= {name: getattr(predictions, name) for name in ("unknown", "duplicates", "damaged")}
    if isinstance(references, FileReferences):
        problems |= {"unreadable": references.damaged, "doubles": references.doubles}
    return problems


def _check_strict(predictions: Predictions | ScoredPredictions, references: AnyReferences, strict: bool) -> None:
    for name, problem in _problems(predictions, references).items() if strict else ():
        if problem.count:
            what = PROBLEMS[name].partition(" (")[0]
            raise SgrlError(f"{predictions.path}: {problem.count:,} x {what}: {problem}; --strict allows none")


def _notices(found: Mapping[str, Any], given: Sources) -> list[str]:
    lines = [*given.lines, *getattr(given.references, "lines", list)()]
    given.lines.clear()
    lines += [f"Note: {CHANGED}"] if found["input"]["changed"] else []
    for name, what in PROBLEMS.items():
        problem = found["input"].get(name, {"count": 0})
        if problem["count"]:
            more = ", ..." if problem["count"] > len(problem["examples"]) else ""
            lines.append(f"Note: {problem['count']:,} {what}: {', '.join(problem['examples'])}{more}")
    return [f"{found['input']['predictions']}:", *lines, ""] if lines else []
