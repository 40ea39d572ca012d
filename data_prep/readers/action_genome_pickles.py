"""The two pickles of Action Genome as arrays: 55 MB instead of the gigabytes that their dictionaries would take."""

from __future__ import annotations

import functools
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.readers import pickle_stream
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
        self.names: list[str] = []  # of objects and predicates, in whatever spelling they have
        self._index: dict[str, int] = {}
        self._video_index: dict[str, int] = {}
        # per frame
        self.video, self.number, self.split = array("I"), array("I"), array("B")
        self.first = array("I", [0])
        # per object; without a box it is not visible
        self.label, self.has_box, self.box = array("H"), array("B"), array("d")
        self.first_relation = array("I", [0])
        # per relation
        self.predicate, self.group = array("H"), array("B")

        self._rows: dict[str, int] = {}  # until the persons have been read
        pickle_stream.each_item(path, functools.partial(self._add_frame, path))
        if not self._rows:
            raise SgrlError(f"{path} holds no frame; expected a dictionary of frames, not empty")
        self.found["annotated frames"] = len(self._rows)
        self.videos_by_number = list(self._video_index)

    def _add_frame(self, path: Path, key, entries) -> None:
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        if match is None:
            if key is None:
                raise SgrlError(f"{path} holds {type(entries).__name__}, expected a dictionary of frames, not empty")
            raise SgrlError(f"{path} has the key {key!r:.60}; expected frames such as '001YG.mp4/000089.png'")
        if key in self._rows:
            raise SgrlError(f"{path} has the key {key!r} twice")
        row = self._rows[key] = len(self.number)
        self.video.append(self._video_index.setdefault(match[1], len(self._video_index)))
        self.number.append(int(match[2]))
        try:
            split, found = _split(entries), [_entry(i, entry) for i, entry in enumerate(entries)]
        except GraphError as error:
            self.damaged[row] = str(error)
            split, found = SPLITS[0], []
        self.split.append(SPLITS.index(split))
        for entry in found:
            self._add_object(*entry)
        self.first.append(len(self.label))
        self.found["objects, visible or not"] += len(entries) if isinstance(entries, list) else 0

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
        pickle_stream.each_item(path, functools.partial(self._add_person, path))
        self.notes["frames that person_bbox.pkl lacks"] += self.person.count(NO_ENTRY)
        self.notes += Counter()  # without the zeros
        self._rows = {}

    def _add_person(self, path: Path, key, entry) -> None:
        if key is None:
            raise SgrlError(f"{path} holds {type(entry).__name__}, expected a dictionary of frames")
        row = self._rows.get(key)
        if row is None:
            self.notes["frames left out: only person_bbox.pkl has them"] += 1
            return
        try:
            box, size, number = _person(entry)
        except GraphError as error:
            self.damaged.setdefault(row, f"{path.name}: {error}")
            return
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
            if index == 65535:
                raise SgrlError(f"the annotation has more than 65,535 different labels, the last {name!r:.60}")
        return index


def _split(entries) -> str:
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise GraphError(f"expected a list of objects, found {entries!r:.60}")
    metadata = entries[0].get("metadata")
    found = metadata.get("set") if isinstance(metadata, dict) else None
    if found not in SPLITS:
        raise GraphError(f"object 0: metadata must say which set, 'train' or 'test', found {found!r:.40}")
    return found


def _entry(index: int, entry: dict) -> tuple[str, tuple | None, list, bool]:
    """(class, xywh or None, three lists of labels, visible) of one object."""
    name, visible, box = entry.get("class"), bool(entry.get("visible", True)), entry.get("bbox")
    if not isinstance(name, str):
        raise GraphError(f"object {index}: class must be a name, found {name!r:.40}")
    if not visible or box is None:
        return name, None, [], visible
    try:
        box = tuple(map(float, box))
    except (TypeError, ValueError):
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise GraphError(f"object {index} ({name}): bbox must be x, y, width, height, found {entry['bbox']!r:.60}")
    lists = [entry.get(f"{group}_relationship") or () for group in GROUPS]
    for group, labels in zip(GROUPS, lists, strict=True):
        if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
            raise GraphError(f"object {index} ({name}): {group}_relationship must list labels, found {labels!r:.60}")
    return name, box, lists, True


def _person(entry) -> tuple[list[float] | None, tuple[int, int], int]:
    """(xyxy of the first person or None, (width, height), number of persons) of one frame."""
    if not isinstance(entry, dict):
        raise GraphError(f"expected bbox and bbox_size, found {entry!r:.60}")
    try:
        width, height = map(int, entry.get("bbox_size"))
        boxes = np.asarray(entry.get("bbox"))
        box = [float(number) for number in boxes[0]] if len(boxes) else None
    except (TypeError, ValueError, OverflowError):
        raise GraphError(
            "bbox must be an (N, 4) array and bbox_size the frame's width and height, found "
            f"{entry.get('bbox')!r:.60} and {entry.get('bbox_size')!r:.60}"
        ) from None
    if not (0 < width < 1 << 16 and 0 < height < 1 << 16):
        raise GraphError(f"bbox_size must be the frame's width and height, found {entry.get('bbox_size')!r:.60}")
    if entry.get("bbox_mode", "xyxy") != "xyxy":
        raise GraphError(f"bbox_mode must be 'xyxy', found {entry['bbox_mode']!r:.40}")
    if box is not None and not (len(box) == 4 and all(map(math.isfinite, box))):
        raise GraphError(f"bbox must be an (N, 4) array of finite numbers, found {entry['bbox']!r:.60}")
    return box, (width, height), len(boxes)
