"""Evaluate a detector on a data set, or look at images and videos of your own with it.

    python recipes/vost/evaluate.py --model runs/vost --dataset data/ag --priors data/ag-priors --output eval/vost
    python recipes/vost/evaluate.py --model runs/vost --input PHOTOGRAPHS a.mp4 --output OUT

OUTPUT gets run.json and predictions.jsonl, as a language model's: the written graph of each frame with a confidence
per relation; and scores/, all pairs with their scores. With a data set also metrics.json: the figures of the text, and
under `action_genome` recall and mean recalls with and without constraint, with intervals over videos, of rare
predicates too, and how often the detector corrected or spoiled what its priors said. `sgrl report OUTPUT` draws it.
Interrupted, the same command goes on; images that do not open are named and left out.
"""

import argparse
import datetime
import json
from pathlib import Path

from rewards.evaluation.detector import PROTOCOLS
from sgrl.arguments import Parser
from sgrl.command import command
from sgrl.errors import SgrlError, UsageError
from sgrl.files import atomic_path, folder_lock

NONE = "none"


def parser() -> Parser:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="folder that recipes/vost/train.py wrote")
    add("--dataset", help="folder that sgrl convert wrote")
    add("--split", default="test", help="default: %(default)s")
    add("--output", required=True, type=Path, help="folder of this run")
    add("--limit", type=int, help="the first N images only")
    add("--priors", default=NONE, help="folder that sgrl priors wrote, or none (default: %(default)s)")
    add("--batch-size", type=int, help="frames at a time (default: 16 on a GPU, 8 on a CPU)")
    add("--min-score", type=float, help="of a relation in the written graph (default: as the model says)")
    add("--max-pairs", type=int, default=30, help="of a written graph (default: %(default)s)")
    add("--protocol", choices=PROTOCOLS, help="of the figures (default: oed-nms for SGDET, else oed)")
    add = parser.add_argument_group("your own images").add_argument
    add("--input", nargs="+", metavar="PATH", help="images, folders (with the temporal stage: videos), video files")
    add("--every", type=int, default=1, help="take each Nth frame of a video file (default: %(default)s)")
    return parser


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for options that make no sense together."""
    if bool(args.dataset) == bool(args.input):
        raise UsageError("give one of --dataset DIR and --input PATH")
    if args.input and args.priors != NONE:
        raise UsageError("--priors are of a data set; leave them out with --input")
    for name in ("limit", "batch_size", "every", "max_pairs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}, expected at least 1")
    if args.min_score is not None and not 0 <= args.min_score <= 1:
        raise UsageError(f"--min-score is {args.min_score}, expected a number in [0, 1]")


@command
def main() -> int:
    args = parser().parse_args()
    check(args)

    from sgrl.inference.detect import DatasetSource, FileSource, detect
    from sgrl.inference.detector import load_vost
    from sgrl.inference.predict import say_failed
    from sgrl.models.vost.priors import Priors
    from sgrl.task import Task

    task = Task.find(args.model)
    if task is None or task.kind != "vost":
        raise SgrlError(f"{args.model} is no detector; expected a folder that recipes/vost/train.py wrote")
    options = {name: getattr(args, name) for name in ("batch_size", "min_score", "max_pairs")}
    with load_vost(args.model, "auto", task, **options) as model, folder_lock(args.output):
        source: DatasetSource | FileSource
        if args.input:
            source = FileSource(model, args.input, args.every, args.limit)
        else:
            priors = None if args.priors == NONE else Priors(args.priors)
            source = DatasetSource(model, args.dataset, args.split, priors, args.limit)
        folder, failed = detect(model, source, args.model, args.output)
        if isinstance(source, DatasetSource):
            score(args, source, folder, failed, model.config.task)
    return say_failed(folder, failed)


def score(args, source, folder, failed, task: str) -> None:
    """Write metrics.json and print what it says."""
    from rewards.evaluation import Evaluation, table
    from rewards.evaluation.detector import detector_figures, lines
    from rewards.evaluation.files import References, predicate_frequency
    from sgrl.inference.detect import SCORES
    from sgrl.inference.predictions import prediction_key

    keys = {key: index for index, key in enumerate(source.keys)}
    evaluation = Evaluation(source.rows.codec, frequency=predicate_frequency(args.dataset))
    folder.rewrite(evaluation.scored(folder, lambda row: prediction_key(row) in keys))
    evaluation.add_all(source.rows.unanswered(keys[key]) for key in failed)  # they count as zero
    found = evaluation.compute()
    protocol = args.protocol or ("oed-nms" if task == "sgdet" else "oed")
    if len(folder.keys):
        references = References(args.dataset, args.split, args.limit)
        prior = None if source.priors is None else source.told
        found["action_genome"] = detector_figures(folder.folder / SCORES, references, protocol, task, prior)
    found["finished"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    with atomic_path(args.output / "metrics.json") as path:
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found))
    if "action_genome" in found:
        print("\n".join(lines(found["action_genome"])))


if __name__ == "__main__":
    main()
