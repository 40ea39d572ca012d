"""Graphs as JSON: a list of them, or one a line. `SceneGraph.from_dict` takes each row, and so does `sgrl export`.

A row is `SceneGraph.to_dict` (see `sgrl.plain`) with dataset, image_id, video_id, frame, fps, seconds and split where
they are known. Frames of videos are rows of their own, whose objects have tracks; a video with tubes is one row, that
of `VideoGraph.to_dict`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from sgrl import plain
from sgrl.export.items import Frame, Item, Source, Video
from sgrl.files import atomic_path
from sgrl.tubes import VideoGraph


def row_of(frame: Frame) -> dict:
    """The row of an image or a frame."""
    return frame.names | frame.graph.to_dict(frame.tracks)


def rows_of(item: Item) -> Iterator[dict]:
    """The rows of an image or a video."""
    if isinstance(item, Frame):
        yield row_of(item)
    elif item.graph is None:
        yield from map(row_of, item.frames)
    else:
        yield _tubes(item, item.graph)


def _tubes(video: Video, graph: VideoGraph) -> dict:
    sides = {"width": video.width, "height": video.height} if video.width and video.height else {}
    row = video.names | sides | graph.to_dict()
    if list(video.numbers) != list(range(row["frames"])):
        row["numbers"] = list(map(int, video.numbers))
    for entry, score in zip(row["objects"], video.scores or (), strict=False):
        entry |= plain.known(score)
    return row


def write_lines(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """One row a line."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        for item in items:
            file.writelines(plain.text(row) + "\n" for row in rows_of(item))


def write_list(items: Iterable[Item], path: Path, source: Source, lost: Counter[str]) -> None:
    """One list of rows, a line each."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        separator = "[\n"
        for item in items:
            for row in rows_of(item):
                file.write(separator + plain.text(row))
                separator = ",\n"
        file.write("\n]\n" if separator != "[\n" else "[]\n")
