"""From records to rows: cleaned, scaled, written as text, with the previous frame's graph if wanted, and counted."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache

from data_prep.clean import clean
from data_prep.images import Job, encode_all
from data_prep.readers.record import OnDamage, Reader, Record, RecordError
from data_prep.report import Report
from data_prep.thin import Thinning
from data_prep.writer import DatasetWriter
from sgrl import data
from sgrl.boxes import COORDS
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.graph import SceneGraph
from sgrl.progress import Progress
from sgrl.prompts import STYLES, scene_graph_prompt, with_previous
from sgrl.text import CODECS, FormatError, answer, get_codec
from sgrl.text.parsed import MAX_OBJECTS, MAX_RELATIONS

PREVIOUS = ("none", "gt")


@dataclass(frozen=True)
class Options:
    """What the text and the image of a row look like.

    Attributes:
        codec: text layout, one of sgrl.text.CODECS.
        coords: "pixel" of the scaled image, or "norm1000".
        size: (width, height) in pixels to scale images to, None to keep each as it is.
        prompt: "full" or "short", see sgrl.prompts.
        previous: "gt" keeps the reference graph of the video's row before in the column `previous`, for the prompt
            (see `sgrl.context`); "none" leaves it null.
        keep_empty: keep images without relations.
        quality: of JPEG images that have to be encoded anew, 1 to 100.
        images: embed the images; False leaves the column null, for statistics on texts.
    """

    codec: str = "toon"
    coords: str = "pixel"
    size: tuple[int, int] | None = (640, 480)
    prompt: str = "full"
    previous: str = "none"
    keep_empty: bool = False
    quality: int = 95
    images: bool = True

    def __post_init__(self):
        for name, value, choices in (
            ("format", self.codec, CODECS),
            ("coordinates", self.coords, COORDS),
            ("prompt style", self.prompt, STYLES),
            ("previous graph", self.previous, PREVIOUS),
        ):
            if value not in choices:
                raise UsageError(f"unknown {name} {value!r}{suggest(value, choices)}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"the JPEG quality must be from 1 to 100, found {self.quality}")
        if self.size is not None and not all(1 <= side <= 16384 for side in self.size):
            raise UsageError(f"images cannot be scaled to {self.size[0]}x{self.size[1]} pixels")


@dataclass(slots=True)
class Draft:
    """What became of a record, but for its image.

    Attributes:
        record: as it was read.
        counts: for `Report.add`.
        graph: what is left after cleaning.
        row: without its image; None if there is to be none.
        error: why the graph cannot be expressed.
        after: what the next frame has to know, see `Converter.resume`.
    """

    record: Record
    counts: dict[str, int]
    graph: SceneGraph
    row: dict | None
    error: SgrlError | None
    after: tuple


class Converter:
    """Turns records into rows.

    count: length of a text for the column `length`; characters by default.
    """

    def __init__(self, reader: Reader, options: Options, count: Callable[[str], int] = len):
        self.reader = reader
        self.options = options
        self.codec = get_codec(options.codec)
        if self.codec.grouped and not reader.vocabulary.groups:
            raise UsageError(
                f"the format {self.codec.name} is for relations in groups, which {reader.name} does not have; choose "
                f"{' or '.join(name for name in CODECS if not get_codec(name).grouped)}"
            )
        self.count = count
        self._prompt = lru_cache(maxsize=1024)(self._render)  # with sizes kept there are as many prompts as sizes
        self._after: dict[str, tuple] = {}  # split -> (video of the last record, and the text of its last row)

    def _render(self, width: int, height: int) -> tuple[str, int]:
        options = self.options
        prompt = scene_graph_prompt(
            self.reader.vocabulary, self.codec.name, width, height, options.prompt, options.coords
        )
        return prompt, self.count(prompt)

    def resume(self, split: str, after: Iterable) -> None:
        """Go on behind a record with `Draft.after`."""
        self._after[split] = tuple(after)

    def draft(self, record: Record) -> Draft:
        """Everything but the image. Records come in the order of the reader."""
        video, previous = self._after.get(record.split, (None, None))
        counts = {
            "records": 1,
            "objects": len(record.graph.objects),
            "relations": len(record.graph.relations),
            "videos": int(record.video_id is not None and record.video_id != video),
        }
        if record.video_id != video:
            previous = None
        graph, row, error = record.graph, None, None
        try:
            graph, repaired = clean(record.graph, self.reader.vocabulary)
            counts.update(repaired)
            if graph.relations or self.options.keep_empty:
                row = self._row(record, graph, previous)
                previous = row["solution"]
        except SgrlError as caught:
            error = caught
        except (
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
        ) as caught:  # numbers that only resizing brings out
            error = SgrlError(f"its graph cannot be written: {type(caught).__name__}: {caught}")
        after = record.video_id, previous if self.options.previous == "gt" else None
        self._after[record.split] = after
        return Draft(record, counts, graph, row, error, after)

    def _row(self, record: Record, graph: SceneGraph, previous: str | None) -> dict:
        original = (graph.width, graph.height)
        size = self.options.size or original
        frame = (1000, 1000) if self.options.coords == "norm1000" else size
        if frame != original:
            graph = graph.resized(*frame)
        solution = self.codec.encode(graph)
        if self.codec.grouped or not _in_limits(graph):
            try:
                self.codec.parse(solution, *frame, tags=False)  # the reward will read it by the same rules
            except FormatError as error:
                raise SgrlError(f"the graph cannot be written as {self.codec.name}: {error}") from None
        (prompt, length), completion = self._prompt(*frame), answer.wrap(solution)
        if self.options.previous == "none":
            previous = None
        if previous is not None:
            length += self.count(with_previous("", previous))
        row = {
            "image": None,
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": completion}],
            "solution": solution,
            "width": frame[0],
            "height": frame[1],
            "dataset": self.reader.name,
            "image_id": record.image_id,
            "length": length + self.count(completion),
        }
        if record.video_id is not None:
            row.update(video_id=record.video_id, frame=record.frame, previous=previous)
        return row

    def job(self, draft: Draft) -> Job | None:
        """The image that a draft waits for."""
        if draft.row is None or not self.options.images:
            return None
        original = (draft.graph.width, draft.graph.height)
        return Job(draft.record.image, original, self.options.size or original, self.options.quality)


class Part:
    """A reader with one part of its records: part `index` of `parts`. Videos are never divided.

    Attributes:
        selects: the reader itself passes over what is not wanted, and counts and notes nothing of it.
    """

    def __init__(self, reader: Reader, index: int, parts: int):
        self._reader, self._index, self._parts = reader, index, parts
        self.selects = hasattr(reader, "wanted")

    def __getattr__(self, name: str):
        return getattr(self._reader, name)

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """As of a Reader."""

        def damaged(error: RecordError) -> None:
            if on_damage and (self.selects or self._mine(error.place)):
                on_damage(error)

        if self.selects:
            setattr(self._reader, "wanted", self._mine)  # noqa: B010  not of every Reader
        try:
            for record in self._reader.records(on_damage and damaged):
                if self._mine(record.image_id if record.video_id is None else record.video_id):
                    yield record
        finally:
            if self.selects:
                setattr(self._reader, "wanted", None)  # noqa: B010

    def _mine(self, name: str) -> bool:
        return zlib.crc32(name.encode(errors="backslashreplace")) % self._parts == self._index


@dataclass(frozen=True)
class Run:
    """Which records are converted, and how.

    Attributes:
        splits: those to write.
        limit: rows per split, None for all.
        strict: raise the first damaged record instead of counting it.
        workers: processes for images, see `data_prep.images.encode_all`.
        thinning: which records to leave out.
        progress: show a bar.
    """

    splits: Collection[str] = data.SPLITS
    limit: int | None = None
    strict: bool = False
    workers: int = 1
    thinning: Thinning | None = None
    progress: bool = False


def convert(converter: Converter, writer: DatasetWriter, run: Run = Run()) -> Report:
    """Stream the records of the converter's reader into `writer`, behind those of its finished shards.

    Raises:
        SgrlError: a damaged annotation file, a damaged record with `strict`, not a single row.
    """
    splits, thinning, report, reader = set(run.splits), run.thinning, Report(), converter.reader
    behind = {split: 0 for split in splits}  # records of finished shards
    own_damage: dict[str, list[str]] = {split: [] for split in splits}  # found here, not by the reader
    for split, before in writer.states.items():
        report.add_json({"splits": {split: before["report"]}, "damaged": before["damaged"]})
        converter.resume(split, before["after"])
        behind[split], own_damage[split] = before["records"], list(before["damaged"])
    if thinning is not None:
        if run.strict and thinning.unreadable:
            raise SgrlError(thinning.unreadable[0])
        report.add_damaged(*thinning.unreadable)

    def damage(error: RecordError) -> None:
        report.add_damaged(error)

    def drafts() -> Iterator[tuple[tuple[int, Draft], Job | None]]:
        position = dict.fromkeys(splits, 0)
        records = reader.records(None if run.strict else damage)
        for record in records:
            progress.update()
            if record.split not in splits:
                report.other_splits.add(record.split)
                continue
            position[record.split] += 1
            if position[record.split] <= behind[record.split] or (thinning and not thinning.keeps(record)):
                continue
            draft = converter.draft(record)
            yield (position[record.split], draft), converter.job(draft)
        report.notes.update(reader.notes)
        report.totals.update(reader.totals())

    reached: dict[str, tuple[int, Draft]] = {}

    def state(split: str) -> dict:
        records, draft = reached[split]
        return {
            "records": records,
            "report": report.split_to_json(split),
            "damaged": own_damage[split],
            "after": draft.after,
        }

    progress = Progress("converting", unit="image", where=writer.output, show=run.progress)
    with progress, closing(encode_all(drafts(), run.workers)) as outcomes:
        for (number, draft), image in outcomes:
            split = draft.record.split
            if run.limit is not None and report.kept(split) >= run.limit:
                if all(report.kept(split) >= run.limit for split in splits):
                    break
                continue
            error = draft.error if image is None or isinstance(image, bytes) else image
            if error is not None:
                error = RecordError(draft.record.place, str(error))
                if run.strict:
                    raise error
                own_damage[split] += report.add_damaged(error)
            _count(report, draft, error is not None)
            reached[split] = number, draft
            if draft.row is not None and error is None:
                if image is not None:
                    draft.row["image"] = {"bytes": image, "path": None}
                writer.add(split, draft.row, functools.partial(state, split))
    return report


def _in_limits(graph: SceneGraph) -> bool:
    """Whether the text of a clean graph without groups is valid: how many rows it has is all that could be wrong."""
    return 1 <= len(graph.objects) <= MAX_OBJECTS and len(graph.relations) <= MAX_RELATIONS


def _count(report: Report, draft: Draft, damaged: bool) -> None:
    counts, graph = draft.counts, draft.graph
    kept = draft.row is not None and not damaged
    ending = "kept" if kept else "dropped"
    counts[f"objects_{ending}"], counts[f"relations_{ending}"] = len(graph.objects), len(graph.relations)
    counts["records_kept" if kept else "damaged" if damaged else "no_relations"] = 1
    report.add(draft.record.split, counts, graph if kept else None)


def nothing_left(report: Report, splits: Iterable[str], thinned: bool = False) -> SgrlError:
    """The error of a conversion without a single row."""
    lines = ["not one row is left, so nothing was written"]
    if any(report.counts.values()):
        counted = "; ".join(f"{title.strip()} {sum(numbers):,}" for title, numbers in report.rows())
        lines += [counted, "images without relations are kept with --keep-empty"]
    elif thinned:
        lines.append("thinning kept no frame")
    elif not report.damaged:
        others = ", ".join(sorted(report.other_splits)) or "nothing at all"
        lines.append(f"there is no record of the split {', '.join(sorted(splits))}, only {others}")
    if report.damaged:
        lines.append(f"{len(report.damaged)} records are damaged, the first: {report.damaged[0]}")
    return SgrlError("; ".join(lines))


def is_video(reader: Reader) -> bool:
    """Whether the records of a reader are frames of videos; its first one tells."""
    first = next(iter(reader.records(lambda error: None)), None)
    return first is not None and first.video_id is not None


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
