"""COCO with relations, as SGG-Benchmark has it, which `to_toon.py --layout coco` reads back.

Beside COCO's own `images`, `annotations` and `categories` there are `rel_categories` and `rel_annotations`, {"id",
"image_id", "subject_id", "object_id", "predicate_id"}. Frames of videos are images with `video_id`, `frame_id` and
`seconds`, whose annotations have a `track_id`; the videos are listed in `videos`. All ids count from 1; what a program
does not know it passes over. Scores are `score`, groups of predicates `group`, spans `span`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sgrl import plain
from sgrl.export.items import Frame, Item, Source, frames_of, item_of, ordered
from sgrl.files import atomic_path, named
from sgrl.graph import SceneGraph
from sgrl.images import SUFFIXES
from sgrl.inference.prediction import Prediction
from sgrl.tubes import VideoGraph
from sgrl.vocabulary import Vocabulary

LISTS = ("images", "annotations", "rel_annotations", "videos")
"""As long as the input; they are written side by side and joined at the end."""


class Classes:
    """Ids of labels, from 1: those of the vocabulary in its order, then others as they come."""

    def __init__(self, labels: Iterable[str] = ()):
        self.ids = {label: number for number, label in enumerate(labels, 1)}

    def __getitem__(self, label: str) -> int:
        return self.ids.setdefault(label, len(self.ids) + 1)

    def entries(self) -> list[dict]:
        """As COCO lists them."""
        return [{"id": number, "name": label, "supercategory": "none"} for label, number in self.ids.items()]


class CocoEntries:
    """Turns graphs into the entries of the lists, one after the other, and counts the ids."""

    def __init__(self, vocabulary: Vocabulary | None, lost: Counter[str]):
        self.objects, self.predicates = (
            Classes(getattr(vocabulary, kind) if vocabulary else ()) for kind in ("objects", "predicates")
        )
        self._counts: Counter[str] = Counter()
        self._lost = lost
        self._videos: dict[tuple[str, str], int] = {}
        self._tracks: dict[int | str, int] = {}

    def of(self, item: Frame) -> Iterator[tuple[str, dict]]:
        """(list, entry) of an image or a frame."""
        graph = item.graph
        number = self._next("images")
        image: dict[str, Any] = {"id": number, "file_name": file_name(item.image_id or str(number))}
        image |= {"width": graph.width, "height": graph.height}
        image |= {name: value for name, value in item.names.items() if name not in ("video_id", "frame")}
        if item.video_id is not None:
            key = item.dataset, item.video_id
            if key not in self._videos:
                self._videos[key] = self._next("videos")
                self._tracks = {}
                yield "videos", {"id": self._videos[key], "name": item.video_id}
            image |= {"video_id": self._videos[key], "frame_id": item.frame}
        yield "images", image
        first = self._counts["annotations"] + 1
        for o, track in zip(graph.objects, item.tracks or (None,) * len(graph.objects), strict=True):
            x1, y1, x2, y2 = ordered(o.box)
            self._lost["boxes whose corners were put in order"] += (x1, y1, x2, y2) != o.box
            annotation: dict[str, Any] = {"id": self._next("annotations"), "image_id": number}
            annotation["category_id"] = self.objects[o.label]
            annotation |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            if track is not None:
                annotation["track_id"] = self._tracks.setdefault(track, len(self._tracks) + 1)
            yield "annotations", annotation | plain.known(o.score)
        for r in graph.relations:
            relation: dict[str, Any] = {"id": self._next("rel_annotations"), "image_id": number}
            relation |= {"subject_id": first + int(r.subject), "object_id": first + int(r.object)}
            relation["predicate_id"] = self.predicates[r.predicate]
            relation |= {} if r.group is None else {"group": r.group}
            relation |= {} if r.span is None else {"span": list(map(plain.number, r.span))}
            yield "rel_annotations", relation | plain.known(r.score)

    def _next(self, name: str) -> int:
        self._counts[name] += 1
        return self._counts[name]


def file_name(image_id: str) -> str:
    """The name of the image's file, which the id of an image in a data set lacks."""
    return image_id if Path(image_id).suffix.lower() in SUFFIXES else f"{image_id}.jpg"


def to_coco(
    graphs: Iterable[SceneGraph | VideoGraph | Prediction | Item], vocabulary: Vocabulary | None = None
) -> dict:
    """The whole file as a dictionary, for few graphs. vocabulary: whose labels come first among the classes."""
    entries = CocoEntries(vocabulary, Counter())
    found: dict[str, list[dict]] = {name: [] for name in LISTS}
    for frame in frames_of(map(item_of, graphs), Counter()):
        for name, entry in entries.of(frame):
            found[name].append(entry)
    return found | {"categories": entries.objects.entries(), "rel_categories": entries.predicates.entries()}


def write(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """One file. Memory holds the classes and the videos' names."""
    entries = CocoEntries(source.vocabulary, lost)
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path))
        stack.enter_context(named(path))
        parts = {name: stack.enter_context(tempfile.TemporaryFile("w+", dir=temporary.parent)) for name in LISTS}
        begun = set()
        for frame in frames_of(items, lost):
            for name, entry in entries.of(frame):
                parts[name].write((",\n" if name in begun else "") + plain.text(entry))
                begun.add(name)
        with open(temporary, "w", encoding="ascii") as file:
            file.write('{"info": {"description": "scene graphs, boxes in pixels"},\n')
            for name, classes in (("categories", entries.objects), ("rel_categories", entries.predicates)):
                file.write(f'"{name}": {json.dumps(classes.entries())},\n')
            for name, part in parts.items():
                file.write(f'"{name}": [\n')
                part.seek(0)
                shutil.copyfileobj(part, file)
                file.write("\n]" + ("}\n" if name == LISTS[-1] else ",\n"))
