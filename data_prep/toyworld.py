"""Draw a toy world of coloured shapes and write it in the official layout of a data set, PSG's by default.

    python data_prep/toyworld.py --output toyworld --train 16000 --test 1000 --seed 0
    python data_prep/to_toon.py --layout psg --root toyworld --output toyworld-toon --resize keep --prompt short
    python data_prep/toyworld.py --layout pvsg --output toyvideos --train 1000 --test 60 --frames 16

Other layouts are `--layout vg150`, `vg`, `coco` and `hub`, and videos with motion: `pvsg`, `action_genome`, and with
depth or transposed masks `psg4d_gta` and `psg4d_hoi`. What is drawn is said in data_prep/toys/scene.py and video.py.
"""

from __future__ import annotations

import argparse
import sys
import time

from data_prep.toys import LAYOUTS
from sgrl import dotted
from sgrl.arguments import Parser, program_name
from sgrl.errors import UsageError, suggest
from sgrl.files import folder_lock
from sgrl.moved import moved_names
from sgrl.process import run_command

__getattr__ = moved_names("data_prep.toyworld")

RICH_TEST = 120
"""Test videos with rich labels: in fewer a rare predicate may not occur."""

_NOT_PREDICATES = ("train", "test", "frames", "objects", "without relations")  # in the counts of a writer


def parser() -> Parser:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--output", required=True, help="folder to write to")
    add("--layout", default="psg", help=f"of which data set: {', '.join(LAYOUTS)} (default: %(default)s)")
    add("--train", type=int, help="training scenes, or videos (default: 16000, 1000 videos; vg 7000, psg4d_gta 100)")
    add("--test", type=int, help="test scenes, or videos (default: 1000, 60 videos; vg 3000, psg4d_gta 20)")
    add("--frames", type=int, help="of a video (default: 16)")
    add(
        "--labels",
        choices=("plain", "rich"),
        default="plain",
        help="action_genome only; rich: predicates that time and class tell apart, rare ones, frames out of focus; "
        "120 test videos unless given (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="another seed gives other scenes (default: %(default)s)")
    add("--workers", type=int, default=1, help="psg only: processes that draw (default: %(default)s)")
    return parser


def run(args: argparse.Namespace) -> None:
    """Check the arguments, draw, and print what was drawn. Raises SgrlError."""
    if args.layout not in LAYOUTS:
        raise UsageError(f"unknown layout {args.layout!r}{suggest(args.layout, LAYOUTS)}")
    layout = LAYOUTS[args.layout]
    rich = args.labels == "rich"
    if rich and not layout.rich:
        having = ", ".join(name for name, each in LAYOUTS.items() if each.rich)
        raise UsageError(f"--labels rich is for --layout {having}, found {args.layout}")
    if args.frames is not None and not layout.frames:
        raise UsageError(f"--frames is for videos; the layout {args.layout} has images")
    train = layout.train if args.train is None else args.train
    test = args.test if args.test is not None else RICH_TEST if rich else layout.test
    options = {"frames": layout.frames if args.frames is None else args.frames} if layout.frames else {}
    if args.workers < 1 or args.workers > 1 and args.layout != "psg":
        raise UsageError(f"--workers {args.workers} is for --layout psg, from 1 on")
    if args.workers > 1:
        options["workers"] = args.workers
    started = time.perf_counter()
    counts = dotted.load(layout.rich if rich else layout.writer)(
        args.output, train, test, seed=args.seed, progress=True, **options
    )
    if counts is None:
        print(f"{args.output} already holds these scenes; nothing to do")
        return
    scenes = counts.get("frames", train + test)
    named = {name: counts[name] for name in counts if name not in _NOT_PREDICATES and counts[name]}
    relations = sum(named.values())
    kind = f"videos of {options['frames']} frames" if layout.frames else "scenes"
    print(f"{train + test:,} {kind} in {time.perf_counter() - started:.0f} s: {train:,} train, {test:,} test")
    unit = "frame" if layout.frames else "scene"
    print(f"  {counts['objects'] / scenes:.2f} objects and {relations / scenes:.2f} relations per {unit},", end=" ")
    print(f"{counts.get('without relations', 0) / scenes:.1%} of the {unit}s have no relation")
    print("  relations: " + ", ".join(f"{name} {number / relations:.0%}" for name, number in sorted(named.items())))
    print(f"  {args.output}/{layout.annotations}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the head of this file. Returns the exit code."""
    args = parser().parse_args(arguments)
    return run_command(program_name("toyworld"), lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    try:
        with folder_lock(args.output):
            run(args)
    except KeyboardInterrupt as error:
        error.args = (f"; {args.output} is incomplete until the command is run again",)
        raise


if __name__ == "__main__":
    sys.exit(main())
