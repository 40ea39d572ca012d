"""The two pickles of Action Genome as arrays: 55 MB instead of the gigabytes that their dictionaries would take."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.readers import pickle_stream
from data_prep.readers.record import RecordError, attempt, shown
from sgrl.errors import SgrlError
from sgrl.graph import GraphError

GROUPS = ("attention", "spatial", "contacting")
SPLITS = ("train", "val", "test")
NO_ENTRY, NO_PERSON, PERSON = range(3)
_KEY = re.compile(r"([^/\\]+)\.mp4/([0-9]{6})\.png")


class Frames:
    """Both pickles, without what is not needed.

    Rows are frames in the order of the file; objects and relations follow each other, those of row i from `first[i]`
    to `first[i + 1]` (of object i: `first_relation`).
    """

    def __init__(self, path: Path):
        self.notes: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.damaged: dict[int, str] = {}  # row -> what is wrong with it
        self.astray: list[RecordError] = []  # items that are no frame
        self.names: list[str] = []  # of objects and predicates, in whatever spelling they have
        self._index: dict[str, int] = {}
        self._video_index: dict[str, int] = {}
        # per frame
        self.video, self.number, self.split = array("I"), array("I"), array("B")
        self.first = array("I", [0])
        # per object; without a box it is not visible
        self.label, self.has_box, self.box = array("I"), array("B"), array("d")
        self.first_relation = array("I", [0])
        # per relation
        self.predicate, self.group = array("I"), array("B")

        self._rows: dict[str, int] = {}  # until the persons have been read
        pickle_stream.each_item(path, partial(self._add_frame, path))
        if not self._rows:
            found = f": {self.astray[0].reason}" if self.astray else ""
            raise SgrlError(f"{path} holds no frame; expected a dictionary of frames, not empty{found}")
        self.found["annotated frames"] = len(self._rows)
        self.videos_by_number = list(self._video_index)

    def _add_frame(self, path: Path, key, entries) -> None:
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        if match is None or key in self._rows:
            if key is None:
                raise SgrlError(f"{path} holds {type(entries).__name__}, expected a dictionary of frames, not empty")
            reason = "twice" if match else "; expected frames such as '001YG.mp4/000089.png'"
            self.astray.append(RecordError(path.name, f"it has the key {shown(key)}{reason}"))
            return
        row = self._rows[key] = len(self.number)
        self.video.append(self._video_index.setdefault(match[1], len(self._video_index)))
        self.number.append(int(match[2]))
        split, found = attempt(partial(self._damage, row, ""), path.name, _frame, entries) or (SPLITS[0], [])
        self.split.append(SPLITS.index(split))
        for entry in found:
            self._add_object(*entry)
        self.first.append(len(self.label))
        self.found["objects, visible or not"] += len(entries) if isinstance(entries, list) else 0

    def _damage(self, row: int, where: str, error: RecordError) -> None:
        self.damaged.setdefault(row, where + error.reason)

    def _add_object(self, name: str, box: tuple | None, lists: list, visible: bool) -> None:
        if box is None:
            self.notes["objects left out: " + ("without a box" if visible else "not visible")] += 1
        self.label.append(self._name_number(name))
        self.has_box.append(box is not None)
        self.box.extend(box or (0.0, 0.0, 0.0, 0.0))
        for group, labels in enumerate(lists):
            self.predicate.extend(map(self._name_number, labels))
            self.group.extend([group] * len(labels))
        self.first_relation.append(len(self.predicate))

    def add_persons(self, path: Path) -> None:
        """Read the other pickle."""
        rows = len(self.number)
        self.person = array("B", [NO_ENTRY]) * rows
        self.person_box = array("d", [0.0]) * (4 * rows)
        self.size = array("I", [0]) * (2 * rows)
        pickle_stream.each_item(path, partial(self._add_person, path))
        self.notes["frames that person_bbox.pkl lacks"] += self.person.count(NO_ENTRY)
        self.notes += Counter()  # without the zeros
        self._rows = {}

    def _add_person(self, path: Path, key, entry) -> None:
        if key is None:
            raise SgrlError(f"{path} holds {type(entry).__name__}, expected a dictionary of frames")
        row = self._rows.get(key) if isinstance(key, str) else None
        if row is None:
            self.notes["frames left out: only person_bbox.pkl has them"] += 1
            return
        person = attempt(partial(self._damage, row, f"{path.name}: "), path.name, _person, entry)
        if person is None:
            return
        box, size, number = person
        self.size[2 * row : 2 * row + 2] = array("I", size)
        self.person[row] = NO_PERSON if box is None else PERSON
        if box is not None:
            self.person_box[4 * row : 4 * row + 4] = array("d", box)
        self.notes["persons left out: not the first of their frame"] += max(number - 1, 0)

    def videos(self) -> Iterator[list[int]]:
        """The rows of each video in time order, videos in the order of the file."""
        video, number = np.frombuffer(self.video, np.uint32), np.frombuffer(self.number, np.uint32)
        order = np.lexsort((number, video))
        for rows in np.split(order, np.flatnonzero(np.diff(video[order])) + 1):
            yield rows.tolist()

    def video_of(self, row: int) -> str:
        return self.videos_by_number[self.video[row]]

    def key(self, row: int) -> str:
        return f"{self.video_of(row)}.mp4/{self.number[row]:06d}.png"

    def _name_number(self, name: str) -> int:
        index = self._index.get(name)
        if index is None:
            index = self._index[name] = len(self.names)
            self.names.append(name)
        return index


def _frame(entries) -> tuple[str, list[tuple]]:
    """(split, `_entry` of each object) of one frame."""
    return _split(entries), [_entry(i, entry) for i, entry in enumerate(entries)]


def _split(entries) -> str:
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise GraphError(f"expected a list of objects, found {shown(entries)}")
    metadata = entries[0].get("metadata")
    found = metadata.get("set") if isinstance(metadata, dict) else None
    if found not in SPLITS:
        raise GraphError(f"object 0: metadata must say which set, 'train' or 'test', found {shown(found)}")
    return found


def _entry(index: int, entry: dict) -> tuple[str, tuple | None, list, bool]:
    """(class, xywh or None, three lists of labels, visible) of one object."""
    name, visible, box = entry.get("class"), bool(entry.get("visible", True)), entry.get("bbox")
    if not isinstance(name, str):
        raise GraphError(f"object {index}: class must be a name, found {shown(name)}")
    if not visible or box is None:
        return name, None, [], visible
    try:
        box = tuple(map(float, box))
    except (TypeError, ValueError):
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise GraphError(f"object {index} ({name}): bbox must be x, y, width, height, found {shown(entry['bbox'])}")
    lists = [entry.get(f"{group}_relationship") or () for group in GROUPS]
    for group, labels in zip(GROUPS, lists, strict=True):
        if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
            raise GraphError(f"object {index} ({name}): {group}_relationship must list labels, found {shown(labels)}")
    return name, box, lists, True


def _person(entry) -> tuple[list[float] | None, tuple[int, int], int]:
    """(xyxy of the first person or None, (width, height), number of persons) of one frame."""
    if not isinstance(entry, dict):
        raise GraphError(f"expected bbox and bbox_size, found {shown(entry)}")
    try:
        size: Any = entry.get("bbox_size")
        width, height = map(int, size)
        boxes = entry.get("bbox")
        if not isinstance(boxes, list | tuple | np.ndarray):
            raise TypeError
        box = [float(number) for number in boxes[0]] if len(boxes) else None
    except (TypeError, ValueError, OverflowError):
        raise GraphError(
            "bbox must be an (N, 4) array and bbox_size the frame's width and height, found "
            f"{shown(entry.get('bbox'))} and {shown(entry.get('bbox_size'))}"
        ) from None
    if not (0 < width < 1 << 16 and 0 < height < 1 << 16):
        raise GraphError(f"bbox_size must be the frame's width and height, found {shown(entry.get('bbox_size'))}")
    if entry.get("bbox_mode", "xyxy") != "xyxy":
        raise GraphError(f"bbox_mode must be 'xyxy', found {shown(entry['bbox_mode'])}")
    if box is not None and not (len(box) == 4 and all(map(math.isfinite, box))):
        raise GraphError(f"bbox must be an (N, 4) array of finite numbers, found {shown(entry['bbox'])}")
    return box, (width, height), len(boxes)
