"""What every format is written from: graphs of images and of videos, one after the other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sgrl.graph import Object, Relation, SceneGraph
from sgrl.inference.prediction import Prediction
from sgrl.tubes import BoxTube, VideoGraph, runs
from sgrl.vocabulary import Vocabulary

Track = int | str | None

SEPARATOR = "__"
"""Between group and predicate, where they stand in one name."""

_HALVES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Frame:
    """A graph of an image, or of one frame of a video.

    Args:
        image_id: as in the data set; a path for a user's own file.
        video_id, frame: of the video, and the frame's number in it. fps: of these numbers.
        split: of the data set.
        tracks: an identity for each object, None where unknown.
    """

    graph: SceneGraph
    dataset: str = ""
    image_id: str = ""
    video_id: str | None = None
    frame: int | None = None
    fps: float | None = None
    split: str | None = None
    tracks: tuple[Track, ...] | None = None

    @property
    def seconds(self) -> float | None:
        """When the frame begins; None for an image, or where `fps` is unknown."""
        return None if self.frame is None or not self.fps else self.frame / self.fps

    @property
    def names(self) -> dict[str, Any]:
        """What names the graph, as entries of files: what is known of dataset, image_id, video_id, frame, fps,
        seconds and split."""
        found = {"dataset": self.dataset or None, "image_id": self.image_id or None, "video_id": self.video_id}
        return _known(found | {"frame": self.frame, "fps": self.fps, "seconds": self.seconds, "split": self.split})


class Thing(NamedTuple):
    """An object of a video. number: its position, from 1. first, last: numbers of the frames in which it was seen,
    None if in none."""

    number: int
    label: str
    track: Track
    first: int | None
    last: int | None


class Event(NamedTuple):
    """A relation that holds for a while: who does what to whom, from when to when.

    who, whom: numbers of things. first, last: numbers of the frames, both included. start, stop: in seconds, from the
    beginning of the first frame to the end of the last, None where the frames per second are unknown.
    """

    who: int
    predicate: str
    whom: int
    group: str | None
    first: int
    last: int
    start: float | None
    stop: float | None
    score: float | None


@dataclass(frozen=True)
class Video:
    """The graphs of a video: of its frames, or of the whole of it with tubes.

    Args:
        frames: those that were looked at, in order, with tracks; () for a whole video.
        graph: of a whole video. numbers: of its frames. width, height: in pixels. scores: of its objects.
        fps: of the frames' numbers.
    """

    video_id: str
    dataset: str = ""
    frames: tuple[Frame, ...] = ()
    graph: VideoGraph | None = None
    numbers: Sequence[int] = ()
    width: int = 0
    height: int = 0
    scores: Sequence[float | None] | None = None
    fps: float | None = None
    split: str | None = None

    @property
    def names(self) -> dict[str, Any]:
        """What names the graph, as entries of files: what is known of dataset, video_id, fps and split."""
        found = {"dataset": self.dataset or None, "video_id": self.video_id, "fps": self.fps, "split": self.split}
        return _known(found)

    def by_frame(self, lost: Counter[str] | None = None) -> Iterator[Frame]:
        """The graph of each frame; of a whole video the objects that are there, and the relations that hold between
        them. lost: counts what frames cannot hold of a whole video."""
        if self.graph is None:
            yield from self.frames
            return
        lost = Counter() if lost is None else lost
        lost["masks of objects of videos, whose boxes are written"] += sum(
            not isinstance(o.tube, BoxTube) for o in self.graph.objects
        )
        tubes = _boxes(self.graph)
        held = [relation.holds(len(self.numbers)) for relation in self.graph.relations]
        for position, number in enumerate(self.numbers):
            there = [i for i, tube in enumerate(tubes) if position < tube.frames and tube.areas[position] > 0]
            place = {i: new for new, i in enumerate(there)}
            objects = [
                Object(self.graph.objects[i].label, tubes[i].boxes[position], self.scores[i] if self.scores else None)
                for i in there
            ]
            relations = [
                Relation(place[r.subject], name, place[r.object], group, score=r.score)
                for r, holds in zip(self.graph.relations, held, strict=True)
                if holds[position] and r.subject in place and r.object in place
                for group, name in [ungrouped(r.predicate)]
            ]
            lost["relations in frames that lack one of their objects"] += sum(
                bool(holds[position]) for holds in held
            ) - len(relations)
            graph = SceneGraph(objects, relations, self.width, self.height)
            name = f"{self.video_id}/{number:06d}"
            tracks = tuple(i + 1 for i in there)
            yield Frame(graph, self.dataset, name, self.video_id, int(number), self.fps, self.split, tracks)

    def story(self) -> tuple[list[Thing], list[Event]]:
        """Its objects, and its relations with their times; those without one hold from the first frame to the last."""
        return self._of_frames() if self.graph is None else self._of_tubes(self.graph)

    def _of_tubes(self, graph: VideoGraph) -> tuple[list[Thing], list[Event]]:
        numbers = [int(number) for number in self.numbers]
        things = []
        for i, (o, tube) in enumerate(zip(graph.objects, _boxes(graph), strict=True), 1):
            seen = [number for number, area in zip(numbers, tube.areas.tolist(), strict=False) if area > 0]
            things.append(Thing(i, o.label, i, seen[0] if seen else None, seen[-1] if seen else None))
        events = []
        for r in graph.relations:
            group, predicate = ungrouped(r.predicate)
            for run in runs(r.holds(len(numbers)).nonzero()[0].tolist()) if numbers else ():
                events.append(self._event(numbers, run, (r.subject + 1, predicate, r.object + 1, group), r.score))
        return things, events

    def _of_frames(self) -> tuple[list[Thing], list[Event]]:
        numbers = [position if frame.frame is None else frame.frame for position, frame in enumerate(self.frames)]
        things: dict[Any, Thing] = {}
        held: dict[tuple, dict[int, float | None]] = {}
        for position, frame in enumerate(self.frames):
            tracks = frame.tracks or (None,) * len(frame.graph.objects)
            names = []
            for i, (o, track) in enumerate(zip(frame.graph.objects, tracks, strict=True)):
                known = (position, i) if track is None else track
                before = things.get(known) or Thing(len(things) + 1, o.label, track, numbers[position], None)
                things[known] = before._replace(last=numbers[position])
                names.append(before.number)
            for r in frame.graph.relations:
                key = (names[r.subject], r.predicate, names[r.object], r.group)
                held.setdefault(key, {})[position] = r.score
        events = []
        for key, scores in held.items():
            for run in runs(sorted(scores)):
                during = map(scores.get, range(int(run[0]), int(run[1]) + 1))
                found = [score for score in during if score is not None]
                events.append(self._event(numbers, run, key, sum(found) / len(found) if found else None))
        events.sort(key=lambda event: event.first)
        return list(things.values()), events

    def _event(self, numbers: list[int], run: tuple, key: tuple, score: float | None) -> Event:
        first, last = numbers[run[0]], numbers[run[1]]
        after = numbers[run[1] + 1] if run[1] + 1 < len(numbers) else last + 1  # where every Nth frame was looked at
        start, stop = (first / self.fps, after / self.fps) if self.fps else (None, None)
        who, predicate, whom, group = key
        return Event(who, predicate, whom, group, first, last, start, stop, score)


def _boxes(graph: VideoGraph) -> list[BoxTube]:
    return [o.tube if isinstance(o.tube, BoxTube) else o.tube.boxes() for o in graph.objects]


Item = Frame | Video


@dataclass(frozen=True)
class Source:
    """Where the graphs come from. name: of the folder. vocabulary: of its labels, where it is known."""

    name: str = ""
    vocabulary: Vocabulary | None = None


def item_of(graph: SceneGraph | VideoGraph | Prediction | Item) -> Item:
    """A graph, or what a model says of an image, as formats take it."""
    if isinstance(graph, SceneGraph):
        return Frame(graph)
    if isinstance(graph, VideoGraph):
        return Video("", graph=graph, numbers=range(graph.frames))
    if isinstance(graph, Prediction):
        return Frame(graph.graph, tracks=graph.tracks)
    return graph


def frames_of(items: Iterable[Item], lost: Counter[str]) -> Iterator[Frame]:
    """The graphs of images and of single frames. lost: see `Video.by_frame`."""
    for item in items:
        if isinstance(item, Video):
            yield from item.by_frame(lost)
        else:
            yield item


def ungrouped(predicate: str) -> tuple[str | None, str]:
    """Group and predicate of "<group>__<predicate>"; no group without it."""
    group, sign, name = predicate.partition(SEPARATOR)
    return (group, name) if sign else (None, predicate)


def utf8(text: str) -> str:
    """The text with U+FFFD for halves of characters, which a model may write and UTF-8 cannot."""
    return _HALVES.sub("\N{REPLACEMENT CHARACTER}", text)


def whole_halves(text: str) -> bool:
    """Whether UTF-8 can hold the text."""
    return not _HALVES.search(text)


def ordered(box: Sequence[float]) -> tuple[float, float, float, float]:
    """The box with its corners in order."""
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
