"""Which frames of a data set stay: one pass over a reader, a video at a time, and the table of what is left."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from data_prep.readers.record import Reader, Record
from sgrl import dotted, extras
from sgrl.data import SPLITS
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.graph import SceneGraph
from sgrl.progress import Progress
from sgrl.vocabulary import Vocabulary

METHODS = {
    "base-annot": "data_prep.thin.base_annot:BaseAnnot",
    "maxinfo": "data_prep.thin.maxinfo:MaxInfo",
    "psfr": "data_prep.thin.psfr:PSFR",
}
"""Name on the command line -> module and class; imported on demand, for one needs OpenCV and another torch."""

PROTOCOLS = ("default", "published")
"""With the faults of the published code mended, or with them."""

Unreadable = Callable[[str], None]
"""Takes the message about a frame that cannot be used and is therefore not kept."""


class LabelSets:
    """Turns the labels of a frame into an integer with a bit for each: compact, and quick to unite and compare.

    An object's label and a predicate never share a bit. Labels outside the vocabulary get bits as they turn up.

    Attributes:
        objects, predicates: the integers of all labels of the vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary):
        self._bits: dict[tuple[str, str], int] = {}
        self.objects = union(self._bit("object", label) for label in vocabulary.objects)
        self.predicates = union(self._bit("predicate", label) for label in vocabulary.predicates)

    def of(self, graph: SceneGraph) -> int:
        """The labels that a graph has."""
        return union([self._bit("object", o.label) for o in graph.objects]) | union(
            [self._bit("predicate", r.predicate) for r in graph.relations]
        )

    def _bit(self, kind: str, label: str) -> int:
        return self._bits.setdefault((kind, label), 1 << len(self._bits))


def union(labels: Iterable[int]) -> int:
    """Every label of any of them."""
    return functools.reduce(operator.or_, labels, 0)


class Method:
    """A way to thin. Subclasses take the data set's vocabulary and their options.

    Attributes:
        Options: frozen dataclass, whose fields have defaults and are what `thin` and --thin-options take.
    """

    Options: type

    needs_all_splits = False
    """Whether the frames of one split have a say in another."""

    def select(self, records: Sequence[Record], unreadable: Unreadable) -> list[int]:
        """Positions of the frames to keep, of all frames of one video in time order."""
        raise NotImplementedError

    def select_labels(self, splits: Mapping[str, Collection[int]], known: int) -> dict[str, set[int]]:
        """Of the label sets (see LabelSets) of the frames that were selected, by split: those that may stay.

        known: all labels of the vocabulary.
        """
        return {split: set(labels) for split, labels in splits.items()}


@dataclass
class Coverage:
    """What thinning left of one split.

    Attributes:
        videos, frames: read.
        unreadable: frames that could not be used.
        kept: frames.
        objects, predicates: how many labels of the vocabulary occur, (in the kept frames, in all).
    """

    split: str
    videos: int = 0
    frames: int = 0
    unreadable: int = 0
    kept: int = 0
    objects: tuple[int, int] = (0, 0)
    predicates: tuple[int, int] = (0, 0)


@dataclass
class Thinning:
    """The outcome of `thin`.

    Attributes:
        method: name.
        kept: image_ids per split.
        rows: one per split.
        unreadable: a message per frame that could not be used.
    """

    method: str
    kept: dict[str, set[str]] = field(default_factory=dict)
    rows: list[Coverage] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def keeps(self, record: Record) -> bool:
        """Whether a record of the reader stays."""
        return record.image_id in self.kept.get(record.split, ())

    def table(self) -> str:
        """Like Table 4 of SceneGraphVLM, a column per split."""
        rows = self.rows
        lines = [
            (f"thinned by {self.method}", [row.split for row in rows]),
            ("videos", [f"{row.videos:,}" for row in rows]),
            ("frames read", [f"{row.frames:,}" for row in rows]),
            ("  unreadable", [f"{row.unreadable:,}" for row in rows]),
            ("frames kept", [f"{row.kept:,}" for row in rows]),
            ("  of those read", [f"{100 * row.kept / row.frames:.1f} %" for row in rows]),
            ("object labels kept", ["{:,} of {:,}".format(*row.objects) for row in rows]),
            ("predicates kept", ["{:,} of {:,}".format(*row.predicates) for row in rows]),
        ]
        if not self.unreadable:
            del lines[3]
        return "\n".join(title.ljust(36) + "".join(f"{cell:>12}" for cell in cells) for title, cells in lines)


def check_protocol(protocol: str) -> None:
    """Raises SgrlError for a name that is not in PROTOCOLS."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol {protocol!r}{suggest(protocol, PROTOCOLS)}")


def check_number(name: str, value: Any, above: float, most: float = math.inf, whole: bool = False) -> None:
    """Raises SgrlError unless `value` is a (whole) number that is larger than `above` and at most `most`."""
    number = isinstance(value, int) or (isinstance(value, float) and not whole)
    if not number or isinstance(value, bool) or not above < value <= most or value == math.inf:
        kind = "a whole number" if whole else "a number"
        end = f" and at most {most:g}" if most < math.inf else ""
        raise SgrlError(f"{name} must be {kind} above {above:g}{end}, found {value!r}")


def open_method(name: str, vocabulary: Vocabulary, options: Mapping[str, object]) -> Method:
    """The method `name` of METHODS; `options` are the fields of its `Options`.

    Raises SgrlError for an unknown name or option, a value out of range, and a package that is not installed.
    """
    if name not in METHODS:
        raise UsageError(f"unknown thinning method {name!r}{suggest(name, METHODS)}")
    try:
        method = dotted.load(METHODS[name])
    except ModuleNotFoundError as error:
        raise (extras.missing(error, f"thinning by {name}") or error) from None
    known = [field.name for field in fields(method.Options)]
    for option in options:
        if option not in known:
            raise UsageError(f"thinning by {name} has no option {option!r}{suggest(option, known)}")
    return method(vocabulary, method.Options(**options))


def thin(reader: Reader, name: str, /, splits: Iterable[str] = SPLITS, progress: bool = False, **options) -> Thinning:
    """Choose frames of all videos of `reader`.

    One pass over its records, with those of one video in memory. Damaged records are passed over silently: the
    conversion that follows meets and reports them.

    Args:
        name: one of METHODS.
        splits: those to look at. base-annot looks at all, whatever is wanted.
        progress: show a bar.
        options: fields of the `Options` of `base_annot.BaseAnnot`, `maxinfo.MaxInfo` or `psfr.PSFR`.

    Raises:
        SgrlError: an unknown method or option, images that belong to no video, frames of a video that lie apart.
    """
    vocabulary = reader.vocabulary
    method = open_method(name, vocabulary, options)
    splits = set(SPLITS if method.needs_all_splits else splits)
    label_sets = LabelSets(vocabulary)
    outcome = Thinning(name)
    coverage: dict[str, Coverage] = {}
    before: dict[str, int] = {}
    kept: dict[str, dict[str, int]] = {}  # image_id -> labels
    records = Progress(f"thinning by {name}", unit="frame", show=progress).over(reader.records(lambda damage: None))
    for frames in _videos(reader.name, records):
        split = frames[0].split
        if split not in splits:
            continue
        if split not in coverage:
            coverage[split], before[split], kept[split] = Coverage(split), 0, {}
        row, failed = coverage[split], len(outcome.unreadable)
        labels = [label_sets.of(record.graph) for record in frames]
        for position in method.select(frames, outcome.unreadable.append):
            kept[split][frames[position].image_id] = labels[position]
        before[split] |= union(labels)
        row.videos += 1
        row.frames += len(frames)
        row.unreadable += len(outcome.unreadable) - failed
    objects, predicates = label_sets.objects, label_sets.predicates
    allowed = method.select_labels({split: found.values() for split, found in kept.items()}, objects | predicates)
    for split in (split for split in SPLITS if split in coverage):
        row, after = coverage[split], union(allowed[split])
        outcome.kept[split] = {image_id for image_id, labels in kept[split].items() if labels in allowed[split]}
        row.kept = len(outcome.kept[split])
        row.objects = (after & objects).bit_count(), (before[split] & objects).bit_count()
        row.predicates = (after & predicates).bit_count(), (before[split] & predicates).bit_count()
        outcome.rows.append(row)
    return outcome


def _videos(name: str, records: Iterable[Record]) -> Iterator[list[Record]]:
    """The frames of one video after another."""
    seen: set[tuple[str, str]] = set()
    for video, frames in itertools.groupby(records, key=lambda record: (record.split, record.video_id)):
        if video[1] is None:
            raise SgrlError(f"{name} has images that belong to no video, and thinning is for the frames of videos")
        if video in seen:
            raise SgrlError(f"{name}: the frames of video {video[1]} ({video[0]}) do not lie next to each other")
        seen.add(video)
        yield list(frames)
