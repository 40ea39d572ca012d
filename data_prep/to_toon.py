"""Convert a scene-graph data set in its official layout to chat data for SFT, GRPO and evaluation.

    python data_prep/to_toon.py --layout psg --root DIR --output OUT
    python data_prep/to_toon.py --layout action_genome --root DIR --output OUT --context gt --workers 8
    python data_prep/to_toon.py --layout pvsg --root DIR --output OUT --thin psfr --thin-options retention=0.3

writes OUT/train-*.parquet, OUT/test-*.parquet and so on, which `datasets.load_dataset(OUT)` and `sgrl.data.load` read,
and OUT/README.md, a data set card. Graphs are cleaned, boxes scaled with the images, labels spelt the same in every
split; the table at the end says what was kept and what was dropped and why. OUT changes only when the conversion has
been completed; after an interruption the same command goes on behind the last finished shard. Jobs of an array share
the work with --shard-index and --num-shards; the last one to end makes the data set appear.
"""

from __future__ import annotations

import argparse
import gc
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from data_prep import card, jsonl, thin
from data_prep.convert import PREVIOUS, Converter, Options, Part, Run, convert, is_video, metadata_of, nothing_left
from data_prep.readers import READERS, open_reader
from data_prep.readers.record import Reader
from data_prep.report import Report
from data_prep.writer import DAMAGED, DatasetWriter, Layout, finish, unfinished
from sgrl import data
from sgrl.arguments import Parser, program_name
from sgrl.dotted import is_dotted
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.files import atomic_path, folder_lock
from sgrl.process import run_command
from sgrl.prompts import STYLES
from sgrl.terminal import printable
from sgrl.text import CODECS

# Option of a reader -> option here, type, help.
_READER_OPTIONS = {
    "annotations": ("--annotations", str, "another annotation file (psg: psg_train_val.json, tiny_psg.json, ...)"),
    "frame_rule": ("--frame-rule", str, "action_genome: sttran (default), oed or all"),
    "validation": (
        "--validation",
        int,
        "vg150: images to take from the training split (default: 5000 of the official)",
    ),
    "vocabulary": ("--vocabulary", str, "hub: official class lists to use (default: those that fit)"),
    "split": (
        "--as-split",
        str,
        "hub: the split that all rows belong to (default: from the names of folders and files)",
    ),
}


def _size(text: str) -> tuple[int, int] | None:
    if text == "keep":
        return None
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isascii() and width.isdecimal() and height.isascii() and height.isdecimal()):
        raise UsageError(f"--resize is {text!r}; expected WIDTHxHEIGHT, for example 640x480, or keep")
    return int(width), int(height)


def _thin_options(texts: list[str]) -> dict:
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (separator and name):
            raise UsageError(f"--thin-options has {text!r}; expected NAME=VALUE, for example tolerance=0.3")
        try:
            found[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            found[name.replace("-", "_")] = value
    return found


def _method(args: argparse.Namespace, reader: Reader) -> thin.Method:
    return thin.open_method(args.thin, reader.vocabulary, _thin_options(args.thin_options))


def _token_counter(name: str) -> Callable[[str], int]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # a damaged folder fails in many ways
        raise UsageError(f"--tokenizer {name} cannot be loaded: {printable(error, 300)}") from None
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def parser() -> Parser:
    parser = Parser(__doc__, renamed={"--dataset": "--layout", "--format": "--codec", "--previous": "--context"})
    add = parser.add_argument_group("what").add_argument
    add(
        "--layout",
        required=True,
        help=f"which layout the root has: {', '.join(READERS)}; or package.module:function, a reader of your own",
    )
    add("--root", required=True, help="the folder of the data set (for psg: it holds psg/psg.json and coco/)")
    add("--output", required=True, help="the folder to write")
    add("--split", nargs="+", default=list(data.SPLITS), help="splits to write (default: all)")
    for name, (option, kind, text) in _READER_OPTIONS.items():
        add(option, type=kind, dest=f"reader_{name}", help=text)
    add("--limit", type=int, help="at most this many rows per split")
    add("--keep-empty", action="store_true", help="keep images without relations")
    add("--strict", action="store_true", help="stop at the first damaged record")
    add = parser.add_argument_group("thinning of videos").add_argument
    add("--thin", help=f"{', '.join(thin.METHODS)} (default: keep all frames)")
    add("--thin-options", nargs="+", default=[], metavar="NAME=VALUE", help="of the method, for example tolerance=0.3")
    add = parser.add_argument_group("text and image").add_argument
    add(
        "--codec",
        help=f"text layout: {', '.join(CODECS)} (default: what published work uses, toon-pairs for "
        "action_genome, toon for the others)",
    )
    add("--coords", default="pixel", help="pixel of the scaled image or norm1000 (default: %(default)s)")
    add("--resize", help="WIDTHxHEIGHT or keep (default: what published work uses, 640x480)")
    add("--prompt", default="full", help=f"{' or '.join(STYLES)} (default: %(default)s)")
    add(
        "--context",
        default="none",
        help=f"videos: the graph of the frame before in each prompt: {' or '.join(PREVIOUS)} (default: %(default)s)",
    )
    add("--quality", type=int, default=95, help="of images that must be encoded anew (default: %(default)s)")
    add("--no-images", action="store_true", help="leave the images out, for statistics on texts")
    add("--tokenizer", help="model name or folder: `length` counts its tokens instead of characters")
    add = parser.add_argument_group("output").add_argument
    add("--shard-size", type=int, default=20000, help="rows per file (default: %(default)s)")
    add("--workers", type=int, default=1, help="processes for images (default: %(default)s)")
    add("--shard-index", type=int, default=0, help="which part of the work this job does, from 0")
    add("--num-shards", type=int, default=1, help="number of jobs that share the work (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace a data set that was made with other arguments")
    add("--jsonl", action="store_true", help="also write OUT/jsonl/: JSON lines and image files")
    add("--push-to-hub", metavar="NAME", help="also upload it to this data set repository, private if it is new")
    add("--public", action="store_true", help="make a new repository public")
    return parser


def _check(args: argparse.Namespace) -> None:
    for split in args.split:
        if split not in data.SPLITS:
            raise UsageError(f"unknown split {split!r}{suggest(split, data.SPLITS)}")
    for name in ("limit", "shard_size", "workers", "num_shards"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; expected a number above 0")
    if not 0 <= args.shard_index < args.num_shards:
        raise UsageError(f"--shard-index is {args.shard_index}; expected a number from 0 to {args.num_shards - 1}")
    if args.limit and args.num_shards > 1:
        raise UsageError(
            "--limit counts rows of the whole data set, which a job of an array does not know; leave it out"
        )
    if args.thin_options and not args.thin:
        raise UsageError("--thin-options without --thin; name the method")


def run(args: argparse.Namespace) -> None:
    """Check the arguments, convert, and print the tables. Raises SgrlError."""
    _check(args)
    size = _size(args.resize) if args.resize else None
    given = {name: getattr(args, f"reader_{name}") for name in _READER_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    reader = open_reader(args.layout, args.root, **given)
    options = Options(
        codec=args.codec or reader.codec,
        coords=args.coords,
        size=size if args.resize else reader.default_size,
        prompt=args.prompt,
        previous=args.context,
        keep_empty=args.keep_empty,
        quality=args.quality,
        images=not args.no_images,
    )
    thinning = {"method": args.thin, **_thin_options(args.thin_options)} if args.thin else None
    # A method that compares splits looks at all videos in every job.
    shared = bool(thinning) and _method(args, reader).needs_all_splits  # first of all, are the options right?
    state = reader.source.stat()
    metadata = metadata_of(
        reader,
        options,
        length=f"tokens of {args.tokenizer}" if args.tokenizer else "characters",
        splits=sorted(args.split),
        limit=args.limit,
        shard_size=args.shard_size,
        source={"path": str(reader.source.resolve()), "bytes": state.st_size, "modified": state.st_mtime},
        own_reader=args.layout if is_dotted(args.layout) else None,
        reader_options=given or None,
        thin=thinning,
        command=shlex.join(_shared(args.command)),
    )
    output = Path(args.output)
    finish(output)
    if _is_done(output, metadata, args.overwrite):
        print(f"{output} already holds this conversion; nothing to do (--overwrite repeats it)")
    elif not _convert(args, reader, options, metadata, output, shared):
        return
    if args.jsonl and not (output / jsonl.FOLDER).exists():
        print(f"{jsonl.export(output, progress=True)}: JSON lines and images")
    if args.push_to_hub:
        print(f"pushed to {card.push(output, args.push_to_hub, private=not args.public)}")


def _shared(words: list[str]) -> list[str]:
    """The command without what differs from job to job."""
    if "--shard-index" in words:
        at = words.index("--shard-index")
        return words[:at] + words[at + 2 :]
    return [word for word in words if not word.startswith("--shard-index=")]


def _is_done(output: Path, metadata: Mapping, overwrite: bool) -> bool:
    if overwrite or not any(output.glob("*.parquet")):
        return False
    found = data.read_metadata(output)

    def said(facts: Mapping) -> dict:  # what was not asked for need not be written down
        return {key: value for key, value in facts.items() if key != "command" and value not in (None, "none")}

    if said(found) == said(json.loads(json.dumps(metadata))):
        return True
    raise SgrlError(
        f"{output} holds a data set made by: {found.get('command')}; choose another --output, or --overwrite it"
    )


def _convert(
    args: argparse.Namespace, reader: Reader, options: Options, metadata: dict, output: Path, shared: bool
) -> bool:
    """Do the work of one job; False if others are not done yet."""
    started = time.perf_counter()
    jobs, progress = args.num_shards, True
    video = is_video(reader)
    if options.previous != "none" and not video:
        raise UsageError(f"--context {options.previous} is for videos; the images of {reader.name} belong to none")
    part = Part(reader, args.shard_index, jobs)
    converter = Converter(part, options, _token_counter(args.tokenizer) if args.tokenizer else len)
    report = Report()

    def compose(summaries: list[dict]) -> dict[str, str]:
        nonlocal report
        if jobs > 1:
            report = Report()
            for found in summaries:
                report.add_json(found["report"], add_notes=part.selects)
        if not any(map(report.kept, args.split)):
            raise nothing_left(report, args.split, bool(args.thin))
        texts = {DAMAGED: "\n".join(report.damaged) + "\n"} if report.damaged else {}
        if card.is_free(output):
            coverage = _coverage(summaries[:1] if shared else summaries)
            texts[card.CARD] = card.card(metadata, report, coverage, output)
        return texts

    layout = Layout(args.shard_size, (args.shard_index, jobs), resume=True, video=video)
    with DatasetWriter(output, metadata, layout, compose) as writer:
        if writer.done:
            report.add_json(writer.summary["report"])
        else:
            if rows := writer.finished_rows():
                print(f"going on behind {rows:,} rows of finished shards in {writer.folder}", file=sys.stderr)
            thinning = None
            if args.thin:
                thinning = _thinned(args, reader if shared else part, writer.folder, progress)
                print(thinning.table(), end="\n\n")
            what = Run(args.split, args.limit, args.strict, args.workers, thinning, progress)
            report = convert(converter, writer, what)
            if jobs == 1 and not any(map(report.kept, args.split)):
                raise nothing_left(report, args.split, bool(args.thin))
            writer.summary = {"report": report.to_json(), "thinning": thinning and _coverage_of(thinning)}
    if report.damaged:
        log = output / DAMAGED
        print(report.damage_summary(log), file=sys.stderr)
    if report.counts:
        print(report.table())
    if remarks := report.remarks():
        print(f"\n{remarks}\n")
    if not writer.published:
        print(f"job {args.shard_index} of {jobs} is done; {output} appears when all are")
        return False
    paths = data.files(output)
    total = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} files, {total / 1e6:.1f} MB in {output}, {time.perf_counter() - started:.0f} s")
    return True


def _thinned(args: argparse.Namespace, reader: Reader, folder: Path, progress: bool) -> thin.Thinning:
    """The choice of frames, remembered for a run that goes on after an interruption."""
    path = folder / "thinning.json"
    if path.exists():
        found = json.loads(path.read_text())
        rows = [
            thin.Coverage(**{**row, "objects": tuple(row["objects"]), "predicates": tuple(row["predicates"])})
            for row in found["rows"]
        ]
        kept = {split: set(ids) for split, ids in found["kept"].items()}
        return thin.Thinning(found["method"], kept, rows, found["unreadable"])
    outcome = thin.thin(reader, args.thin, args.split, progress, **_thin_options(args.thin_options))
    with atomic_path(path) as temporary:
        in_order = {split: sorted(ids) for split, ids in outcome.kept.items()}
        temporary.write_text(json.dumps({**asdict(outcome), "kept": in_order}))
    return outcome


def _coverage_of(thinning: thin.Thinning) -> dict:
    return {row.split: {"videos": row.videos, "frames": row.frames, "kept": row.kept} for row in thinning.rows}


def _coverage(summaries: list[dict]) -> dict | None:
    """Of all jobs together."""
    total: dict[str, dict[str, int]] = {}
    for summary in summaries:
        for split, row in (summary["thinning"] or {}).items():
            sums = total.setdefault(split, dict.fromkeys(row, 0))
            for key, number in row.items():
                sums[key] += number
    return total or None


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the head of this file. Returns the exit status, see `sgrl.process.run_command`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(arguments)
    args.command = ["sgrl", "convert", *arguments]
    return run_command(program_name("to_toon"), lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    try:
        with folder_lock(args.output, shared=args.num_shards > 1):
            run(args)
    except KeyboardInterrupt as error:
        kept = unfinished(Path(args.output))
        end = "what is finished is kept, and the same command goes on from there" if kept else "nothing was written"
        error.args = (f"; {end}",)
        raise


if __name__ == "__main__":
    gc.freeze()  # what is imported stays
    gc.set_threshold(50_000)  # rows have no cycles; looking for some every 700 objects costs a tenth of the time
    sys.exit(main())
