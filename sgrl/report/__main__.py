"""python -m sgrl.report --run base=RUN --run sft=RUN --run grpo=RUN --dataset DATA --output page.html

Writes one HTML file that needs nothing else: the runs' figures side by side, training curves, and held-out images with
the reference graph and every run's graph drawn on them. A run is a folder that recipes/evaluate.py wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sgrl import data
from sgrl.errors import SgrlError
from sgrl.report.page import render, text_table, write
from sgrl.report.runs import Run, read_curve, read_run
from sgrl.text import get_codec


def named(argument: str) -> tuple[str, str]:
    """'name=DIR' as (name, DIR); a bare DIR takes its folder's name."""
    name, sign, folder = argument.partition("=")
    return (name, folder) if sign else (Path(argument).name, argument)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sgrl.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=named, action="append", required=True, metavar="NAME=DIR", help="an evaluated run; repeat it"
    )
    parser.add_argument("--dataset", required=True, help="the data set that the runs were evaluated on")
    parser.add_argument("--split", default="test", help="its split (default: %(default)s)")
    parser.add_argument(
        "--curve", type=named, action="append", default=[], metavar="[NAME=]DIR",
        help="output_dir of SFT or GRPO, for loss and reward curves; repeat it",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=24, help="how many images to show (default: %(default)s)")
    parser.add_argument("--title", default="Scene graph report")
    parser.add_argument("--output", required=True, type=Path, help="the HTML file to write")
    return parser.parse_args(arguments)


def common_keys(runs: Sequence[Run], count: int) -> list[tuple[str, str]]:
    """The first `count` images of the first run that every run has."""
    sets = [set(run.keys) for run in runs[1:]]
    return [key for key in runs[0].keys if all(key in keys for keys in sets)][:count]


def read_images(dataset: str, split: str, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """The encoded image of each key. Raises `SgrlError` naming a key that the data set lacks."""
    from datasets import Image

    rows = data.load(dataset, split)
    names = rows.select_columns(["dataset", "image_id"])
    wanted = set(keys)
    places = {}
    for index, row in enumerate(names):
        key = (str(row["dataset"]), str(row["image_id"]))
        if key in wanted:
            places[key] = index
    missing = [key for key in keys if key not in places]
    if missing:
        raise SgrlError(
            f"{dataset}, split {split!r} lacks {len(missing)} of {len(keys)} predicted images, such as "
            f"{missing[0][1]!r}; give the --dataset and --split that the runs were evaluated on"
        )
    rows = rows.cast_column("image", Image(decode=False))
    return {key: rows[index]["image"]["bytes"] for key, index in places.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    names = [name for name, _ in args.run]
    if len(set(names)) < len(names):
        raise SgrlError(f"two runs have the same name ({', '.join(names)}); name them: --run sft=DIR --run grpo=DIR")
    runs = [read_run(name, folder) for name, folder in args.run]
    keys = common_keys(runs, args.images)
    runs = [read_run(name, folder, keys) for name, folder in args.run]
    curves = [read_curve(name, folder) for name, folder in args.curve]
    images = read_images(args.dataset, args.split, keys)
    metadata = data.read_metadata(args.dataset)
    counts = sorted({len(run.keys) for run in runs})
    count = " or ".join(f"{count:,}" for count in counts)
    subtitle = f"{count} held-out images, {args.split} split of {args.dataset}"
    command = ["python", "-m", "sgrl.report", *(sys.argv[1:] if arguments is None else arguments)]
    ordered = [(key, images[key]) for key in keys]
    codec = get_codec(runs[0].info.get("codec") or metadata["codec"])
    write(args.output, render(runs, curves, ordered, codec, args.title, subtitle, command))
    print(text_table(runs))
    print(f"\nWrote {args.output} ({args.output.stat().st_size / 1e6:.1f} MB): {len(runs)} runs, {len(keys)} images")


if __name__ == "__main__":
    try:
        main()
    except SgrlError as error:
        sys.exit(f"error: {error}")
