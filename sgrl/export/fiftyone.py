"""FiftyOne's `FiftyOneImageDetectionDataset`, written without FiftyOne: the file `labels.json` of that layout.

    fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneImageDetectionDataset, data_path=IMAGES,
                              labels_path="labels.json")

A detection has label, bounding_box (x, y, width and height as shares of the image) and confidence, and as attributes
`index` (from 1, of the object in its image), `track`, and the relations that begin at it: `predicates` and `objects`,
two lists of one length, the second of indices. Images are named by their file without its suffix; frames of videos are
images.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sgrl import plain
from sgrl.export.items import Frame, Item, Source, frames_of, ordered
from sgrl.files import atomic_path
from sgrl.images import SUFFIXES


def detections_of(item: Frame) -> list[dict]:
    """The detections of an image or a frame."""
    graph, found = item.graph, []
    for i, (o, track) in enumerate(zip(graph.objects, item.tracks or (None,) * len(graph.objects), strict=True)):
        x1, y1, x2, y2 = ordered(o.box)
        w, h = graph.width, graph.height
        known = plain.known(o.score)
        detection = {"label": o.label, "bounding_box": [x1 / w, y1 / h, (x2 - x1) / w, (y2 - y1) / h]}
        detection |= {"confidence": known["score"]} if known else {}
        own = [r for r in graph.relations if r.subject == i]
        attributes = {"index": i + 1, "predicates": [r.predicate for r in own]}
        attributes |= {"objects": [int(r.object) + 1 for r in own]} | ({} if track is None else {"track": track})
        found.append(detection | {"attributes": attributes})
    return found


def name_of(item: Frame, number: int) -> str:
    """What names an image: its file without the suffix."""
    stem, suffix = os.path.splitext(item.image_id)
    return (stem if suffix.lower() in SUFFIXES else item.image_id) or str(number)


def write(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """One file."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write('{"labels": {')
        for number, frame in enumerate(frames_of(items, lost), 1):
            entry = f"{plain.text(name_of(frame, number))}: {plain.text(detections_of(frame))}"
            file.write((",\n" if number > 1 else "\n") + entry)
            for key, values in (("scores", "score"), ("groups", "group"), ("spans", "span")):
                lost[f"{key} of relations"] += sum(getattr(r, values) is not None for r in frame.graph.relations)
        file.write("\n}}\n")
