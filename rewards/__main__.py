"""`python -m rewards score PREDICTIONS --reference DATASET` gives the figures of a file of predictions: see
rewards/evaluation/score.py.

`python -m rewards validate DATASET`: does every reference score the maximum, and an empty answer the minimum?

A data set whose references are malformed, or whose SFT answers are not what the reward asks for, teaches the wrong
thing without any error. Run this once after sgrl convert, before training.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rewards.evaluation import score
from rewards.evaluation.files import read_rows
from rewards.presets import PRESETS, Preset, get_preset
from rewards.reading import as_answer, is_absent
from rewards.scorer import GraphScorer
from sgrl.arguments import Parser
from sgrl.errors import SgrlError, UsageError, near
from sgrl.process import run_command
from sgrl.progress import Progress
from sgrl.terminal import printable
from sgrl.text import FormatError, detect_codec

TOLERANCE = 1e-9


@dataclass
class Report:
    """What `validate` found.

    Attributes:
        rows, without_relations: how many references, and how many of them have no relation.
        absent: rows without a reference, which the rewards leave out: solution, width or height is null.
        failures: how many rows failed, by kind. examples: (row, kind, explanation) of the first ones.
    """

    rows: int = 0
    without_relations: int = 0
    absent: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str, str]] = field(default_factory=list)

    def fail(self, row: str, kind: str, explanation: str, keep: int) -> None:
        self.failures[kind] += 1
        if len(self.examples) < keep:
            self.examples.append((row, kind, explanation))


def validate(rows: Iterator[dict[str, Any]], preset: Preset, keep: int = 20) -> Report:
    """Scores each reference as an answer, the row's `completion` if there is one, and the empty answer.

    rows: dicts with solution, width, height, row (a name), perhaps completion. keep: how many failures to describe.
    """
    report = Report()
    scorers: dict[tuple[Any, ...], GraphScorer] = {}
    for row in rows:
        solution = row["solution"]
        if is_absent(solution, (row["width"], row["height"])):
            report.absent += 1
            continue
        report.rows += 1
        try:
            key = (detect_codec(solution), row["width"], row["height"])
            scorer = scorers.get(key) or scorers.setdefault(key, GraphScorer(*key, preset=preset))
            reference = scorer.reference(solution)
        except SgrlError as error:
            kind = "malformed reference" if isinstance(error, FormatError) else "unusable row"
            report.fail(row["row"], kind, str(error).removeprefix("malformed reference: "), keep)
            continue
        report.without_relations += not reference.relations
        answers = {"reference below the maximum": as_answer(solution, preset.family), "empty answer scores": ""}
        if row.get("completion") is not None:
            answers["SFT answer below the maximum"] = row["completion"]
        best = preset.maximum(relations=bool(reference.relations))
        for kind, text in answers.items():
            scored = scorer(text, reference)
            total, wanted = preset.total(scored), 0.0 if text == "" else best
            if abs(total - wanted) > TOLERANCE:
                why = scored.reason or ", ".join(f"{name} {scored.terms[name]:.3f}" for name in preset.weights)
                report.fail(row["row"], kind, f"{total:.4f} instead of {wanted:.4f}: {why}", keep)
    return report


def parser() -> Parser:
    parser = Parser(__doc__, "python -m rewards validate", {"--preset": "--reward"})
    add = parser.add_argument
    add("dataset", help="folder or file of Parquet with the columns solution, width, height")
    add("--reward", default="full", help=f"preset: {', '.join(PRESETS)} (default: full)")
    add("--show", type=int, default=20, metavar="N", help="failures to print in full (default: 20)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """`python -m rewards score` or `validate`; returns the exit status, see `sgrl.process.run_command`."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name == "score":
        return run_command("rewards score", lambda: score.main(rest))
    return run_command(f"rewards {name}".strip(), lambda: _validate(name, rest))


def _validate(name: str, arguments: list[str]) -> int:
    if name != "validate":
        raise UsageError(f"expected a command: score or validate, found {name!r}{near(name, ('score', 'validate'))}")
    options = parser().parse_args(arguments)
    preset = get_preset(options.reward)
    report = validate(Progress("validating").over(read_rows(options.dataset)), preset, options.show)
    for row, kind, explanation in report.examples:
        print(printable(f"{row}: {kind}: {explanation}"))
    failed = report.failures.total()
    if failed > len(report.examples):
        print(f"... and {failed - len(report.examples)} more")
    print(
        f"{report.rows} references, {report.without_relations} of them without relations; preset {preset.name}: "
        f"maximum {preset.maximum():g} ({preset.maximum(relations=False):g} without relations), empty answer 0"
    )
    if report.absent:
        print(f"{report.absent} rows have no reference (a null in solution, width or height): rewards leave them out")
    for kind, count in report.failures.most_common():
        print(printable(f"FAILED  {kind}: {count}"))
    if not report.rows:
        print("FAILED  the data set is empty")
    elif not failed:
        print("OK  every reference scores the maximum, every empty answer the minimum")
    return 0 if report.rows and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
