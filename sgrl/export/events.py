"""A table of events as CSV: who does what to whom, in which image, or in a video from when to when.

A row is a relation of an image, or a span in which a relation of a video holds. Frames are numbered as in the data
set, both ends included; seconds go from the beginning of the first frame to the end of the last. What is unknown is
empty.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sgrl.export.items import Item, Source, Thing, Video, utf8
from sgrl.files import atomic_path

_WHO = ("dataset", "image_id", "video_id", "subject_id", "subject", "predicate", "object_id", "object", "group")
COLUMNS = (*_WHO, "first_frame", "last_frame", "from_seconds", "to_seconds", "score")
ENDS = ("subject_id", "object_id")


def rows_of(item: Item) -> tuple[list[dict], int]:
    """The rows of an image or a video, and how many objects it has; ids are tracks, positions from 1 without such."""
    if isinstance(item, Video):
        return _of_video(item)
    things = item.graph.objects
    names: dict[str, Any] = {"dataset": item.dataset, "image_id": item.image_id, "video_id": item.video_id}
    names |= {"first_frame": item.frame, "last_frame": item.frame}
    ids = [i if track is None else track for i, track in enumerate(item.tracks or (None,) * len(things), 1)]
    rows = []
    for r in item.graph.relations:
        row = names | {"subject_id": ids[r.subject], "subject": things[r.subject].label, "predicate": r.predicate}
        row |= {"object_id": ids[r.object], "object": things[r.object].label, "group": r.group, "score": r.score}
        rows.append(row)
    return rows, len(things)


def _of_video(item: Video) -> tuple[list[dict], int]:
    things, events = item.story()
    rows = []
    for e in events:
        who, whom = things[e.who - 1], things[e.whom - 1]
        row: dict[str, Any] = {"dataset": item.dataset, "video_id": item.video_id}
        row |= {"subject": who.label, "object": whom.label}
        row |= {"subject_id": _name(who), "object_id": _name(whom), "predicate": e.predicate, "group": e.group}
        row |= {"first_frame": e.first, "last_frame": e.last, "from_seconds": e.start, "to_seconds": e.stop}
        rows.append(row | {"score": e.score})
    return rows, len(things)


def _name(thing: Thing) -> int | str:
    return thing.number if thing.track is None else thing.track


def write(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """One file, UTF-8 with a line of headers; objects without a relation are not in it."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, restval="")
        table.writeheader()
        for item in items:
            rows, objects = rows_of(item)
            for row in rows:
                clean = {name: utf8(value) if isinstance(value, str) else value for name, value in row.items()}
                lost["texts with halves of characters"] += sum(clean[name] != row[name] for name in row)
                table.writerow(clean)
            lost["objects without a relation"] += objects - len({row[e] for row in rows for e in ENDS})
            if isinstance(item, Video) and not item.fps:
                lost["events without seconds, where the frames per second are unknown (--fps)"] += len(rows)
