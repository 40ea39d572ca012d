"""Ask vision-language models about every pair of a data set's images, for a detector or for a table of opinions.

    python recipes/extract_priors.py --dataset data/ag --models runs/vlm-0 runs/vlm-1 --output data/ag-priors
    python recipes/extract_priors.py --dataset data/psg --models Qwen/Qwen2.5-VL-7B-Instruct --ask frame --output OUT

With several models the i-th is asked about the i-th fold of the training split, which it must not have seen
(`folds: 2`, `leave_out_fold: i` in its training), so that its answers are as good, and as bad, as they will be of the
test. OUTPUT is a folder of predictions, for `rewards score` and the report, and of priors: priors.parquet,
features/ and text.safetensors of CLIP, and priors.json, which says what made them. Interrupted, the same command goes
on; jobs of an array share the work with --shard-index and --num-shards.
"""

import argparse
from pathlib import Path

from sgrl.arguments import Parser
from sgrl.command import command
from sgrl.errors import UsageError
from sgrl.inference.options import add_engine_arguments, check_engine_arguments
from sgrl.inference.pair_questions import ASK


def parser() -> Parser:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--dataset", required=True, help="folder that data_prep/to_toon.py wrote")
    add("--split", nargs="+", default=["train", "test"], help="default: train test")
    add("--train-split", default="train", help="the one that models may have been trained on (default: %(default)s)")
    add("--output", required=True, type=Path, help="folder of this run")
    add("--limit", type=int, help="the first N images of each split only")
    add(
        "--ask", choices=ASK, default="dataset",
        help="dataset: the data set's own prompt, for models trained on it; frame: all things of an image at once; "
        "pair: each pair of the reference's boxes; frame+pair: things first, then each pair (default: %(default)s)",
    )  # fmt: skip
    add("--coords", default="auto", help="how models write boxes: pixel, norm1000 or auto, by the model's family")
    add("--max-pairs", type=int, default=100, help="of one image (default: %(default)s)")
    add("--test-model", type=int, default=0, help="which of --models is asked about the other splits, from 0")
    add("--encoder", help="CLIP or SigLIP for words and regions (default: openai/clip-vit-base-patch32)")
    add("--regions", action=argparse.BooleanOptionalAction, default=True, help="encode the regions of pairs")
    add("--shard-index", type=int, default=0, help="which part of the work this job does, from 0")
    add("--num-shards", type=int, default=1, help="number of jobs that share the work (default: %(default)s)")
    add_engine_arguments(parser, max_new_tokens=1024, several=True)
    return parser


def of_model(args: argparse.Namespace, name: str) -> argparse.Namespace:
    """The options for one of the models, checked."""
    one = argparse.Namespace(**{**vars(args), "model": name, "constrain": False})
    check_engine_arguments(one)
    return one


def coordinates(args: argparse.Namespace) -> str:
    """As the models write boxes."""
    from sgrl.boxes import COORDS
    from sgrl.models.vlm.coordinates import convention_of

    if args.coords in COORDS or args.ask == "dataset":
        return "pixel" if args.ask == "dataset" else args.coords
    found = {1000: "norm1000", None: "pixel"}
    conventions = [convention_of(args.coords, name) for name in args.models]
    if len(set(conventions)) > 1 or conventions[0].y_first or conventions[0].bins not in found:
        raise UsageError(f"--coords {args.coords}: these models write boxes in other ways; say pixel or norm1000")
    return found[conventions[0].bins]


@command
def main() -> int:
    args = parser().parse_args()
    settings = {name: of_model(args, name) for name in args.models}

    from sgrl.inference.predict import load, locked
    from sgrl.inference.priors import Extraction, extract
    from sgrl.models.detection.regions import ENCODER
    from sgrl.versions import installed

    names = ("dataset", "output", "ask", "train_split", "test_model", "max_pairs", "regions", "limit")
    extraction = Extraction(
        **{name: getattr(args, name) for name in (*names, "shard_index", "num_shards")},
        splits=tuple(args.split),
        models=tuple(args.models),
        coords=coordinates(args),
        encoder=args.encoder or ENCODER,
    )
    first = settings[args.models[0]]
    run = {name: getattr(first, name) for name in ("engine", "max_new_tokens", "dtype", "thinking")}
    with locked(args):
        counts = extract(extraction, run | {"versions": installed()}, lambda name: load(settings[name], args.engine))
    if not counts:
        print("This job is done; others are not yet")
        return 0
    print(
        f"{counts['images']:,} images: {counts['pairs']:,} pairs with {counts['relations']:,} relations; "
        f"{counts['without_person']:,} without a person, {counts['cut']:,} answers cut at the limit, "
        f"{counts['dropped']:,} labels and boxes of no use"
    )
    print(f"Wrote {args.output}/priors.parquet")
    return 0


if __name__ == "__main__":
    main()
