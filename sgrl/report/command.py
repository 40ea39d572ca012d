"""Runs as a report to look at: figures side by side, training curves, images with the graphs drawn on them.

    sgrl report build/demo/eval/sft build/demo/eval/grpo --output build/demo/report
    sgrl report first=RUN second=RUN --output page.html

A run is a folder that recipes/evaluate.py wrote, or recipes/predict.py for one's own images, or one of scored
predictions (sgrl.scores). --output names a folder,
whose index.html opens without a server; if it ends in .html everything goes into that one file.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sgrl import data
from sgrl.arguments import Parser
from sgrl.errors import SgrlError, UsageError
from sgrl.inference.predictions import Key
from sgrl.progress import Progress
from sgrl.report import tables
from sgrl.report.gallery import PICKS, build, choose
from sgrl.report.page import Folder, Frame, render, write_chunks, write_page
from sgrl.report.pictures import Pictures, encode
from sgrl.report.runs import Curve, Run, read_curve, state_file
from sgrl.report.scored import keep_rows, open_run
from sgrl.text import get_codec


def named(argument: str) -> tuple[str, str]:
    """'name=DIR' as (name, DIR); a bare DIR takes its folder's name."""
    name, sign, folder = argument.partition("=")
    bare = not sign or Path(argument).exists()
    return (Path(argument).resolve().name, argument) if bare else (name, folder)


def parser() -> Parser:
    parser = Parser(__doc__, "sgrl report", {"--images": "--limit"})
    add = parser.add_argument
    add("runs", type=named, nargs="+", metavar="[NAME=]RUN", help="the folder of a run")
    add("--output", type=Path, default=Path("report"), help="folder or .html file (default: %(default)s)")
    add("--limit", type=int, default=100, help="at most so many images on the page (default: %(default)s)")
    add("--pick", choices=PICKS, default="random", help="which, if there are more (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the random sample (default: %(default)s)")
    add("--dataset", help="the data set, if it is not where the run found it")
    add(
        "--curve", type=named, action="append", default=[], metavar="[NAME=]DIR",
        help="output_dir of one more training; those of the runs' models are found",
    )  # fmt: skip
    add("--title", default="Scene graph report")
    return parser


def read_curves(runs: Sequence[Run], more: Sequence[tuple[str, str]]) -> list[Curve]:
    """Of the trainings that made the runs' models, where these are here; and of `more`."""
    curves: dict[Path, Curve] = {}
    for run in runs:
        model = Path(str(run.info.get("model")))
        folder = model.parent if re.fullmatch(r"checkpoint-\d+", model.name) else model
        if folder.is_dir() and state_file(folder):
            curves.setdefault(folder.resolve(), read_curve(run.name, folder))
    for name, place in more:
        curves[Path(place).resolve()] = read_curve(name, place)
    return list(curves.values())


def place_images(pictures: Pictures, keys: Sequence[Key], folder: Path | None) -> list[tuple[str, int, int]]:
    """Each picture's address, width and height: a file in `folder`/images, or the picture itself as data."""
    places = []
    progress = Progress("encoding images", len(keys), "image", where=folder)
    for number, key in progress.over(enumerate(keys)):
        picture = pictures[key]
        content, kind = encode(picture)
        if folder:
            address = f"images/{number:06d}.{kind}"
            (folder / address).write_bytes(content)
        else:
            address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        places.append((address, *picture.size))
    return places


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    if args.limit < 1:
        raise UsageError(f"--limit is {args.limit}, expected at least 1")
    names = [name for name, _ in args.runs]
    if len(set(names)) < len(names):
        raise SgrlError(f"two runs have the same name ({', '.join(names)}); name them: sft=DIR grpo=DIR")
    single = args.output.suffix.lower() in (".html", ".htm")
    runs = [open_run(name, folder, args.dataset) for name, folder in args.runs]
    curves = read_curves(runs, args.curve)
    keys, shown = choose(runs, args.limit, args.pick, args.seed)
    pictures = Pictures(runs[0], keys, args.dataset)
    codec = get_codec(runs[0].info.get("codec") or data.read_metadata(args.dataset or pictures.name)["codec"])
    for run in runs:
        keep_rows(run, keys, codec)
    note = ""
    if pictures.changed:
        note = '<p class="note warn">The data set has changed since the first run: its images may be others.</p>'
    counts = " or ".join(f"{count:,}" for count in sorted({len(run.keys) for run in runs}))
    split = "" if runs[0].info.get("input") else f", {runs[0].info.get('split') or 'test'} split"
    subtitle = f"{counts} images of {pictures.name}{split}"
    command = ["sgrl", "report", *(sys.argv[2:] if arguments is None else arguments)]

    frame = Frame(args.title, subtitle, shown, command, single, note)

    def page(gallery) -> str:
        return render(runs, curves, gallery, frame)

    if single:
        text = page(build(runs, keys, codec, place_images(pictures, keys, None)))
        write_page(args.output, text)
        size, target = args.output.stat().st_size, args.output
    else:
        with Folder(args.output) as folder:
            gallery = build(runs, keys, codec, place_images(pictures, keys, folder))
            write_chunks(folder / "data", gallery)
            write_page(folder / "index.html", page(gallery))
        size = sum(path.stat().st_size for path in args.output.rglob("*") if path.is_file())
        target = args.output / "index.html"
    if any(run.scored for run in runs):
        print(tables.as_text([run for run in runs if run.scored]) + "\n")
    print(f"{shown}\nWrote {target} ({size / 1e6:.1f} MB): {len(runs)} run{'s' * (len(runs) > 1)}, {len(keys)} images")
