"""Evaluate a model on a data set: write a graph for every image, and compare each with its reference.

    python recipes/evaluate.py --model build/demo/grpo --dataset build/demo/data --output build/demo/eval/grpo

Graphs come from vLLM, or from transformers where there is no vLLM, or from a server (--engine openai), decoded
greedily, as recipes/predict.py writes them: appended to OUTPUT/predictions.jsonl as they come. Then each gets its
scores, and the means go to OUTPUT/metrics.json. Interrupted, the same command goes on where it was.
`sgrl report` turns such folders into a page with pictures.
"""

import datetime
import json

from sgrl.arguments import Parser
from sgrl.command import command
from sgrl.files import atomic_path
from sgrl.inference.options import add_arguments, check_arguments
from sgrl.inference.predict import locked, open_rows, predict, say_failed
from sgrl.inference.predictions import prediction_key
from sgrl.inference.rows import DatasetRows
from sgrl.progress import Progress


def parser() -> Parser:
    parser = Parser(__doc__)
    add_arguments(parser)
    return parser


@command
def main() -> int:
    args = parser().parse_args()
    check_arguments(args)

    from rewards.evaluation import Evaluation, table
    from rewards.evaluation.files import predicate_frequency

    with locked(args):
        rows = open_rows(args)
        assert isinstance(rows, DatasetRows)  # it asks for no --input
        folder, failed = predict(args, rows)
        evaluation = Evaluation(rows.codec, frequency=predicate_frequency(args.dataset))
        keys = {key: index for index, key in enumerate(rows.keys)}
        # A folder may hold more images than --limit asks for: they get their scores, but no part in the figures.
        scored = evaluation.scored(folder, lambda row: prediction_key(row) in keys)
        folder.rewrite(Progress("scoring", len(folder.keys), "image", where=folder.folder).over(scored))
        evaluation.add_all(rows.unanswered(keys[key]) for key in failed)  # they count as zero
        found = evaluation.compute()
        found["finished"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        with atomic_path(args.output / "metrics.json") as path:
            path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found))
    cut = f"; {found['truncated']:,} cut off at {args.max_new_tokens} tokens" if found["truncated"] else ""
    print(f"{found['mean_tokens']:.1f} tokens and {found['seconds_per_graph']:.4f} s per graph{cut}")
    return say_failed(folder, failed)


if __name__ == "__main__":
    main()
