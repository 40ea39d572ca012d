"""Score a run by the soft protocol: a judge says whether labels that differ mean the same.

    python recipes/judge.py build/demo/eval/grpo --model Qwen/Qwen3-4B-Instruct-2507
    OPENAI_API_KEY=... python recipes/judge.py RUN --engine openai --base-url https://HOST/v1 --model NAME

RUN is a folder that recipes/evaluate.py wrote. Boxes and equal labels decide first; of what is left each distinct
question is asked once (see rewards/metrics/soft.py). The answers go to RUN/judge.jsonl as they come (--cache, which
several runs may share): interrupted, the same command goes on where it was. The figures go to RUN/soft.json.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from sgrl.arguments import Parser
from sgrl.command import command
from sgrl.errors import SgrlError
from sgrl.files import atomic_path, folder_lock
from sgrl.inference.judge import EngineJudge
from sgrl.inference.options import add_engine_arguments, check_engine_arguments
from sgrl.inference.predict import load
from sgrl.inference.predictions import PREDICTIONS_FILE, PredictionFolder, model_fingerprint, read_run_file


def parser() -> Parser:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder that recipes/evaluate.py wrote")
    add("--cache", type=Path, help="file of answers (default: RUN/judge.jsonl)")
    add("--scene", action="store_true", help="show the judge both whole graphs with each question, as published")
    add("--constrain", action="store_true", help="decode by a grammar of yes and no (vLLM, transformers)")
    add("--iou-threshold", type=float, default=0.5, help="least IoU of two boxes (default: %(default)s)")
    add_engine_arguments(parser, max_new_tokens=16)
    return parser


class Samples:
    """A run's predictions beside their references, from disk each time."""

    def __init__(self, folder: Path):
        self.run = read_run_file(folder)
        if not self.run or not (folder / PREDICTIONS_FILE).is_file():
            raise SgrlError(f"{folder} holds no run; expected a folder that recipes/evaluate.py wrote")
        self.folder = PredictionFolder(folder, self.run, ())
        first = next(iter(self.folder), None)
        if first is None:
            raise SgrlError(f"{self.folder.path} holds no prediction; let recipes/evaluate.py finish first")
        self.first = first

    def __iter__(self) -> Iterator[tuple]:
        for row in self.folder:
            if row["solution"] is None:
                raise SgrlError(f"{self.folder.path}: image {row['image_id']!r} has no reference to compare with")
            yield row["prediction"], row["solution"], row["width"], row["height"]


def identity(args: argparse.Namespace) -> str:
    """What the answers depend on."""
    found = {"model": args.model if args.engine == "openai" else model_fingerprint(args.model)}
    for name in ("max_new_tokens", "dtype", "thinking", "constrain", "extra_body"):
        if getattr(args, name) not in (False, {}, "auto"):
            found[name] = getattr(args, name)
    return json.dumps(found, sort_keys=True)


def table(found: dict) -> str:
    """The figures as text, strict ones beside soft ones."""
    lines = [f"{'':<12}{'strict':>26}{'soft':>28}", f"{'':<12}" + f"{'precision':>12}{'recall':>8}{'F1':>8}" * 2]
    both = found["strict"], found["soft"]
    for kind in ("object", "relation"):
        values = [figures[f"{kind}_{name}"] for figures in both for name in ("precision", "recall", "f1")]
        lines.append(f"{kind}s".ljust(12) + "{:12.3f}{:8.3f}{:8.3f}{:12.3f}{:8.3f}{:8.3f}".format(*values))
    lines.append(f"{'SGG score':<12}" + "".join(f"{figures['sgg_score']:28.3f}" for figures in both))
    disputes, questions = (sum(found[name].values()) for name in ("disputes", "questions"))
    images, answers = found["soft"]["samples"], found["answers"]
    lines += [
        f"{images:,} images: {disputes:,} disputes ({disputes / images:.2f} an image), "
        f"{questions:,} distinct questions ({questions / images:.2f})",
        f"answers: {answers['yes']:,} yes, {answers['no']:,} no",
    ]
    if answers["neither"]:
        some = "; ".join(repr(text[:40]) for text in list(found["unclear"].values())[:3])
        lines.append(f"         {answers['neither']:,} neither yes nor no, which count as no: {some}")
    if sum(found["not_asked"].values()):
        lines.append(f"{sum(found['not_asked'].values()):,} disputes about words that are no name count as no")
    usage = found["judge"]
    lines.append(
        f"{usage['asked']:,} asked now, {usage['known']:,} answered before; {usage['prompt_tokens']:,} tokens in, "
        f"{usage['tokens']:,} out"
    )
    return "\n".join(lines)


def judged(args: argparse.Namespace) -> dict:
    """Ask, and write RUN/soft.json, which is returned. Raises SgrlError."""
    from rewards.metrics.soft import soft_metrics

    samples = Samples(args.run)
    cache = args.cache or args.run / "judge.jsonl"
    judge = EngineJudge(lambda: load(args, args.engine), identity(args), cache, args.constrain)
    try:
        found = soft_metrics(
            samples, judge, samples.run["codec"], samples.first["width"], samples.first["height"],
            scene=args.scene, iou_threshold=args.iou_threshold,
        )  # fmt: skip
    except KeyboardInterrupt as error:
        error.args = (f" after {judge.asked:,} answers; the same command goes on there",)
        raise
    finally:
        judge.close()
    found |= {
        "judge": {
            **{"identity": json.loads(judge.identity), "scene": args.scene, "iou_threshold": args.iou_threshold},
            **{name: getattr(judge, name) for name in ("asked", "known", "prompt_tokens", "tokens")},
        },
        "unclear": dict(list(judge.unclear.items())[:100]),
    }
    with atomic_path(args.run / "soft.json") as path:
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


@command
def main() -> None:
    args = parser().parse_args()
    check_engine_arguments(args, images=False)
    with folder_lock(args.run):
        found = judged(args)
    print(table(found))


if __name__ == "__main__":
    main()
