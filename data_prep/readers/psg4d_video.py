"""One video of PSG4D's annotation: objects, relations with their spans, and what had to be detected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from data_prep.readers.record import RecordError, shown
from sgrl.terminal import printable

_IDS = ("object_id", "mask_id")
_SHAPES = "[id, predicate, id, [start, end]] or [id, id, predicate, start, end], with one span or a list of them"


@dataclass(frozen=True, slots=True)
class TimedRelation:
    """subject and object are positions in `Video.objects`; spans are first and last frame, inclusive; () is always."""

    subject: int
    predicate: str
    object: int
    spans: tuple[tuple[int, int], ...]

    def holds(self, frame: int) -> bool:
        """Whether the relation is annotated for the frame."""
        return not self.spans or any(first <= frame <= last for first, last in self.spans)


@dataclass(frozen=True, slots=True)
class Video:
    """A video as annotated.

    Attributes:
        video_id: also its folder.
        place: file and video, for messages.
        objects: (value in the masks, label) each.
        relations: those that are not damaged.
        frames: their number, None where the file does not say.
        only: the kind of id that relations must mean, if only one fits.
    """

    video_id: str
    place: str
    objects: list[tuple[int, str]]
    relations: list[TimedRelation]
    frames: int | None
    only: tuple[str, ...]

    def clipped(self, frames: int) -> tuple[list[TimedRelation], Counter[str]]:
        """Relations with their spans clipped to the video, those without any left out, and how many of each."""
        kept: list[TimedRelation] = []
        counts: Counter[str] = Counter()
        for relation in self.relations:
            spans = tuple((max(first, 0), min(last, frames - 1)) for first, last in relation.spans)
            counts["spans clipped to the video"] += sum(a != b for a, b in zip(spans, relation.spans, strict=True))
            inside = tuple((first, last) for first, last in spans if first <= last)
            counts["spans without a frame"] += len(spans) - len(inside)
            if inside or not spans:
                kept.append(replace(relation, spans=inside))
        return kept, +counts


class Schema:
    """How videos are written.

    Args:
        categories: class number -> name, where objects have no name of their own (PSG4D-HOI: mask_id modulo 1000).
        default: the id that relations mean ("object_id" or "mask_id") where both would fit.
    """

    def __init__(self, categories: dict[int, str], default: str = "object_id"):
        self.categories = categories
        self.default = default

    def video(self, place: str, raw, damaged: Callable[[RecordError], None]) -> Video:
        """Raises RecordError for a video that fits nothing; single relations with unknown ids go to `damaged`."""
        if not isinstance(raw, dict):
            raise RecordError(place, f"expected an object, found {shown(raw)}")
        video_id = raw.get("video_id")
        if not isinstance(video_id, str) or not video_id:
            raise RecordError(place, f"video_id must be the name of a folder, found {shown(video_id)}")
        place += f" ({printable(video_id, 60)})"
        path = PurePosixPath(video_id)
        if path.is_absolute() or ".." in path.parts or "\\" in video_id:
            raise RecordError(place, "video_id points outside the data set")
        entries = raw.get("object", raw.get("objects"))
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise RecordError(place, f"expected a list of objects named 'object', found {shown(entries)}")
        objects = [self._object(place, i, entry) for i, entry in enumerate(entries)]
        for value, number in Counter(value for value, _ in objects).items():
            if number > 1:
                raise RecordError(place, f"the mask value {value} stands for {number} objects; expected one")
        rows = raw.get("relations", [])
        if not isinstance(rows, list):
            raise RecordError(place, f"relations must be a list, found {shown(rows)}")
        rows = [_row(place, i, row) for i, row in enumerate(rows)]
        position, only = self._ids(entries, rows)
        relations = []
        for i, (subject, predicate, target, spans) in enumerate(rows):
            unknown = [end for end in (subject, target) if end not in position]
            if unknown:
                known = shown(list(position)) if position else "no objects at all"
                reason = f"{shown(predicate)} is of the object {unknown[0]}; expected one of {known}"
                damaged(RecordError(f"{place}, relation {i}", reason))
                continue
            relations.append(TimedRelation(position[subject], predicate, position[target], spans))
        meta = raw.get("meta")
        frames = meta.get("num_frames") if isinstance(meta, dict) else raw.get("num_frames")
        length = int(frames) if _is_whole(frames) and frames > 0 else None
        return Video(video_id, place, objects, relations, length, only)

    def _object(self, place: str, index: int, entry: dict) -> tuple[int, str]:
        value = entry.get("mask_id", entry.get("object_id"))
        if not _is_whole(value) or value <= 0:
            raise RecordError(place, f"object {index}: expected a mask_id or object_id above 0, found {shown(value)}")
        label = entry.get("category")
        if not isinstance(label, str):
            number = int(value) % 1000
            if not self.categories:
                raise RecordError(place, f"object {index}: category must be a name, found {shown(label)}")
            label = self.categories.get(number, f"class {number}")  # outside the vocabulary, and counted as such
        return int(value), label

    def _ids(self, entries: list[dict], rows: list[tuple]) -> tuple[dict[int, int], tuple[str, ...]]:
        """The id that relations use -> position of the object; and its name, if only one fits."""
        ends = {end for subject, _, target, _ in rows for end in (subject, target)}
        tables = {}
        for name in _IDS:
            if entries and all(_is_whole(entry.get(name)) for entry in entries):
                table = {int(entry[name]): i for i, entry in enumerate(entries)}
                if len(table) == len(entries):
                    tables[name] = table
        fitting = [name for name, table in tables.items() if ends <= table.keys()]
        if len(fitting) == 1:
            return tables[fitting[0]], tuple(fitting) if len(tables) > 1 else ()
        best = tables.get(self.default) or next(iter(tables.values()), {})
        return best, ()


def _row(place: str, index: int, row) -> tuple[int, str, int, tuple[tuple[int, int], ...]]:
    """(subject, predicate, object, spans) of a relation in any of the layouts."""
    if isinstance(row, list):
        words = [i for i, value in enumerate(row) if isinstance(value, str)]
        rest = [value for value in row if not isinstance(value, str)]
        if len(words) == 1 and words[0] <= 2 and len(rest) >= 2 and all(map(_is_whole, rest[:2])):
            spans = _spans(rest[2:])
            if spans is not None:
                return int(rest[0]), row[words[0]], int(rest[1]), spans
    raise RecordError(place, f"relation {index}: expected {_SHAPES}, found {shown(row)}")


def _spans(values: list) -> tuple[tuple[int, int], ...] | None:
    """start, end | [start, end] | [[start, end], ...] | nothing; None for anything else."""
    while len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not values:
        return ()
    if len(values) == 2 and all(map(_is_whole, values)):
        return ((int(values[0]), int(values[1])),)
    if all(isinstance(span, list) and len(span) == 2 and all(map(_is_whole, span)) for span in values):
        return tuple((int(first), int(last)) for first, last in values)
    return None


def _is_whole(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
