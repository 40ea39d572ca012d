"""Write a scene graph for every image of a data set, or for your own images and videos.

    python recipes/predict.py --model build/demo/grpo --dataset build/demo/data --output build/predictions
    python recipes/predict.py --model MODEL --input PHOTOGRAPHS a.mp4 --output OUT

How a model is asked stands in its folder (scene_graph.json); for one that has none, --task says it.

Predictions are appended to OUTPUT/predictions.jsonl as they come, with time, tokens and each relation's confidence.
Interrupted, the same command goes on where it was. Jobs of an array share the work with --shard-index and
--num-shards; the one that ends last joins the parts. recipes/evaluate.py does the same and scores what comes out.
"""

import json

from sgrl.arguments import Parser
from sgrl.command import command
from sgrl.inference.options import add_arguments, check_arguments
from sgrl.inference.predict import locked, open_rows, predict, say_failed, summary
from sgrl.inference.predictions import USAGE_FILE, write_parquet


def parser() -> Parser:
    parser = Parser(__doc__)
    add_arguments(parser)
    add = parser.add_argument_group("your own images").add_argument
    add("--input", nargs="+", metavar="PATH", help="images, folders of them, videos")
    add("--every", type=int, default=1, help="take each Nth frame of a video file (default: %(default)s)")
    add = parser.add_argument_group("jobs and files").add_argument
    add("--shard-index", type=int, default=0, help="which part of the work this job does, from 0")
    add("--num-shards", type=int, default=1, help="number of jobs that share the work (default: %(default)s)")
    add("--parquet", action="store_true", help="also write OUTPUT/predictions.parquet")
    add("--format", choices=["json", "jsonl"], help="also write the graphs as OUTPUT/graphs.json or graphs.jsonl")
    return parser


@command
def main() -> int:
    args = parser().parse_args()
    check_arguments(args)
    with locked(args):
        folder, failed = predict(args, open_rows(args))
        print(summary(json.loads((folder.folder / USAGE_FILE).read_text())))
        if args.parquet:
            print(f"Wrote {write_parquet(folder)}")
        if args.format and folder.keys:
            from sgrl.export import export

            graphs = folder.folder / f"graphs.{args.format}"
            export(folder.folder, args.format, graphs)
            print(f"Wrote {graphs}")
    return say_failed(folder, failed)


if __name__ == "__main__":
    main()
