"""Convert a scene-graph data set in its official layout to chat data for SFT, GRPO and evaluation.

    python data_prep/to_toon.py --dataset psg --root DIR --output OUT

writes OUT/train-*.parquet, OUT/test-*.parquet and so on, which `datasets.load_dataset(OUT)` and `sgrl.data.load` read.
Graphs are cleaned, boxes scaled with the images, labels spelt the same in every split; the table at the end says what
was kept and what was dropped and why. OUT changes only when the conversion has been completed.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from data_prep.clean import clean
from data_prep.images import encoded
from data_prep.readers import READERS, open_reader
from data_prep.readers.record import Reader, Record, RecordError
from data_prep.report import Report
from data_prep.writer import DatasetWriter
from sgrl import data
from sgrl.boxes import COORDS
from sgrl.errors import SgrlError, suggest
from sgrl.files import atomic_path
from sgrl.graph import SceneGraph
from sgrl.prompts import STYLES, scene_graph_prompt
from sgrl.text import CODECS, FormatError, answer, get_codec


@dataclass(frozen=True)
class Options:
    """What the text and the image of a row look like.

    Attributes:
        codec: text layout, one of sgrl.text.CODECS.
        coords: "pixel" of the scaled image, or "norm1000".
        size: (width, height) in pixels to scale images to, None to keep each as it is.
        prompt: "full" or "short", see sgrl.prompts.
        keep_empty: keep images without relations.
        quality: of JPEG images that have to be encoded anew, 1 to 100.
        images: embed the images; False leaves the column null, for statistics on texts.
    """

    codec: str = "toon"
    coords: str = "pixel"
    size: tuple[int, int] | None = (640, 480)
    prompt: str = "full"
    keep_empty: bool = False
    quality: int = 95
    images: bool = True

    def __post_init__(self):
        for name, value, choices in (
            ("format", self.codec, CODECS),
            ("coordinates", self.coords, COORDS),
            ("prompt style", self.prompt, STYLES),
        ):
            if value not in choices:
                raise SgrlError(f"unknown {name} {value!r}{suggest(value, choices)}")
        if not 1 <= self.quality <= 100:
            raise SgrlError(f"the JPEG quality must be from 1 to 100, found {self.quality}")
        if self.size is not None and not all(1 <= side <= 16384 for side in self.size):
            raise SgrlError(f"images cannot be scaled to {self.size[0]}x{self.size[1]} pixels")


class Converter:
    """Turns records into rows and keeps the `report`.

    count: length of a text for the column `length`; characters by default.
    """

    def __init__(self, reader: Reader, options: Options, count: Callable[[str], int] = len):
        self.reader = reader
        self.options = options
        self.codec = get_codec(options.codec)
        if self.codec.grouped and not reader.vocabulary.groups:
            raise SgrlError(
                f"the format {self.codec.name} is for relations in groups, which {reader.name} does not have; choose "
                f"{' or '.join(name for name in CODECS if not get_codec(name).grouped)}"
            )
        self.count = count
        self.report = Report()
        self._prompt = lru_cache(maxsize=1024)(self._render)  # with sizes kept there are as many prompts as sizes

    def _render(self, width: int, height: int) -> tuple[str, int]:
        options = self.options
        prompt = scene_graph_prompt(
            self.reader.vocabulary, self.codec.name, width, height, options.prompt, options.coords
        )
        return prompt, self.count(prompt)

    def row(self, record: Record) -> dict | None:
        """The row of a record (see sgrl.data.COLUMNS), None if it has no relations and those are not wanted.

        Raises RecordError for an image that cannot be used and a graph that its codec cannot express.
        """
        self.report.read(record.split, record.graph)
        graph, counts = clean(record.graph, self.reader.vocabulary)
        self.report.cleaned(record.split, counts)
        if not graph.relations and not self.options.keep_empty:
            self.report.drop(record.split, "no_relations", graph)
            return None
        try:
            row = self._row(record, graph)
        except SgrlError as error:
            self.report.drop(record.split, "damaged", graph)
            raise RecordError(record.place, str(error)) from None
        self.report.keep(record.split, graph)
        return row

    def _row(self, record: Record, graph: SceneGraph) -> dict:
        options = self.options
        original = (graph.width, graph.height)
        size = options.size or original
        frame = (1000, 1000) if options.coords == "norm1000" else size
        if frame != original:
            graph = graph.resized(*frame)
        solution = self.codec.encode(graph)
        try:
            self.codec.parse(solution, *frame, tags=False)  # the reward will read it by the same rules
        except FormatError as error:
            raise SgrlError(f"the graph cannot be written as {self.codec.name}: {error}") from None
        image = None
        if options.images:
            image = {"bytes": encoded(record.image, original, size, options.quality), "path": None}
        (prompt, prompt_length), completion = self._prompt(*frame), answer.wrap(solution)
        return {
            "image": image,
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": completion}],
            "solution": solution,
            "width": frame[0],
            "height": frame[1],
            "dataset": self.reader.name,
            "image_id": record.image_id,
            "length": prompt_length + self.count(completion),
        }


def convert(
    converter: Converter,
    output: str | Path,
    metadata: dict,
    splits: Iterable[str] = data.SPLITS,
    limit: int | None = None,
    strict: bool = False,
    shard_size: int = 20000,
    progress: bool = False,
) -> Report:
    """Stream all records of the converter's reader into `output`.

    Args:
        metadata: goes into every file; see `metadata_of`.
        splits: those to write.
        limit: rows per split, None for all.
        strict: raise the first damaged record instead of counting it.
        shard_size: rows per file.

    Raises:
        SgrlError: a damaged annotation file, a damaged record with `strict`, not a single row; nothing is written.
    """
    from tqdm import tqdm

    splits, report = set(splits), converter.report
    with DatasetWriter(output, metadata, shard_size) as writer:
        records = converter.reader.records(None if strict else report.damage)
        for record in tqdm(records, desc="converting", unit=" images", disable=not progress):
            if record.split not in splits:
                report.other_splits.add(record.split)
                continue
            if limit is not None and report.kept(record.split) >= limit:
                if all(report.kept(split) >= limit for split in splits):
                    break
                continue
            try:
                row = converter.row(record)
            except RecordError as error:
                if strict:
                    raise
                report.damage(error)
                continue
            if row is not None:
                writer.add(record.split, row)
        if not any(report.kept(split) for split in splits):
            raise SgrlError(_nothing(report, splits))
    return report


def _nothing(report: Report, splits: set[str]) -> str:
    lines = ["not one row is left, so nothing was written"]
    if any(report.counts.values()):
        lines += [report.table(), "images without relations are kept with --keep-empty"]
    elif not report.damaged:
        others = ", ".join(sorted(report.other_splits)) or "nothing at all"
        lines.append(f"there is no record of the split {', '.join(sorted(splits))}, only {others}")
    if report.damaged:
        lines.append(f"{len(report.damaged)} records are damaged, the first: {report.damaged[0]}")
    return "\n".join(lines)


def metadata_of(reader: Reader, options: Options, length: str = "characters", **more) -> dict:
    """What `sgrl.data.read_metadata` gives back. length: the unit of the column."""
    return {
        **asdict(options),
        "size": list(options.size) if options.size else None,
        "dataset": reader.name,
        "vocabulary": data.vocabulary_to_json(reader.vocabulary),
        "length": length,
        **more,
    }


def _size(text: str) -> tuple[int, int] | None:
    if text == "keep":
        return None
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isascii() and width.isdecimal() and height.isascii() and height.isdecimal()):
        raise SgrlError(f"--resize is {text!r}; expected WIDTHxHEIGHT, for example 640x480, or keep")
    return int(width), int(height)


def _token_counter(name: str) -> Callable[[str], int]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise SgrlError(f"--tokenizer {name}: {str(error).splitlines()[0]}") from None
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--dataset", required=True, help=f"which layout the root has: {', '.join(READERS)}")
    add("--root", required=True, help="the folder of the data set (for psg: it holds psg/psg.json and coco/)")
    add("--output", required=True, help="the folder to write")
    add("--annotations", help="another annotation file (psg: psg_train_val.json, psg_val_test.json, tiny_psg.json)")
    add("--split", nargs="+", default=list(data.SPLITS), help="splits to write (default: all)")
    add("--format", default="toon", help=f"text layout: {', '.join(CODECS)} (default: %(default)s)")
    add("--coords", default="pixel", help="pixel of the scaled image or norm1000 (default: %(default)s)")
    add("--resize", help="WIDTHxHEIGHT or keep (default: what published work uses, 640x480 for psg)")
    add("--prompt", default="full", help=f"{' or '.join(STYLES)} (default: %(default)s)")
    add("--keep-empty", action="store_true", help="keep images without relations")
    add("--strict", action="store_true", help="stop at the first damaged record")
    add("--limit", type=int, help="at most this many rows per split")
    add("--shard-size", type=int, default=20000, help="rows per file (default: %(default)s)")
    add("--quality", type=int, default=95, help="of images that must be encoded anew (default: %(default)s)")
    add("--no-images", action="store_true", help="leave the images out, for statistics on texts")
    add("--tokenizer", help="model name or folder: `length` counts its tokens instead of characters")
    add("--overwrite", action="store_true", help="replace a data set that was made with other arguments")
    return parser


def run(args: argparse.Namespace) -> None:
    """Check the arguments, convert, and print the table. Raises SgrlError."""
    for split in args.split:
        if split not in data.SPLITS:
            raise SgrlError(f"unknown split {split!r}{suggest(split, data.SPLITS)}")
    for name, value in (("--limit", args.limit), ("--shard-size", args.shard_size)):
        if value is not None and value < 1:
            raise SgrlError(f"{name} is {value}; expected a number above 0")
    size = _size(args.resize) if args.resize else None
    reader = open_reader(args.dataset, args.root, **({"annotations": args.annotations} if args.annotations else {}))
    options = Options(
        codec=args.format,
        coords=args.coords,
        size=size if args.resize else reader.default_size,
        prompt=args.prompt,
        keep_empty=args.keep_empty,
        quality=args.quality,
        images=not args.no_images,
    )
    state = reader.source.stat()
    metadata = metadata_of(
        reader,
        options,
        length=f"tokens of {args.tokenizer}" if args.tokenizer else "characters",
        splits=sorted(args.split),
        limit=args.limit,
        shard_size=args.shard_size,
        source={"path": str(reader.source.resolve()), "bytes": state.st_size, "modified": state.st_mtime},
        command=shlex.join(["python", "data_prep/to_toon.py", *args.command]),
    )
    output = Path(args.output)
    if not args.overwrite and any(output.glob("*.parquet")):
        found = data.read_metadata(output)
        if {**found, "command": None} == {**metadata, "command": None}:
            print(f"{output} already holds this conversion; nothing to do (--overwrite repeats it)")
            return
        raise SgrlError(
            f"{output} holds a data set made by: {found.get('command')}\nchoose another --output, or --overwrite it"
        )
    started = time.perf_counter()
    converter = Converter(reader, options, _token_counter(args.tokenizer) if args.tokenizer else len)
    report = convert(
        converter, output, metadata, args.split, args.limit, args.strict, args.shard_size, sys.stderr.isatty()
    )
    seconds = time.perf_counter() - started
    log = output / "damaged.txt"
    log.unlink(missing_ok=True)
    if report.damaged:
        with atomic_path(log) as temporary:
            temporary.write_text("\n".join(report.damaged) + "\n")
        print(report.damage_summary(log), file=sys.stderr)
    print(report.table())
    paths = data.files(output)
    total = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} files, {total / 1e6:.1f} MB in {output}, {seconds:.0f} s")


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the head of this file. Returns the exit code: 0, 2 for a message, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parser().parse_args(arguments)
    args.command = arguments
    try:
        run(args)
    except (SgrlError, OSError) as error:
        print(f"to_toon: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("to_toon: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
