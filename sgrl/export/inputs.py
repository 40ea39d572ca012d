"""Where graphs come from: folders of predictions, of scores, data sets, and files that were exported as JSON lines.

All are read as streams. Frames of a video come together and in their order, and get tracks (`sgrl.linking.link`)
where they have none; what is held in memory is one video, and of predictions of videos 24 bytes a line.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sgrl import data, plain
from sgrl.errors import SgrlError
from sgrl.export.items import Frame, Item, Source, Video, ungrouped
from sgrl.export.reading import NAMELESS, RELATIONS, Reading
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.inference.predictions import PREDICTIONS_FILE, RUN_FILE, read_run_file
from sgrl.linking import link
from sgrl.scores import ScoreFolder, holds_scores
from sgrl.scores.written import read_text
from sgrl.task import Task
from sgrl.terminal import printable
from sgrl.text import Codec, get_codec
from sgrl.tubes import VideoGraph
from sgrl.vocabulary import Vocabulary


def open_input(path: str | Path, reading: Reading) -> tuple[Source, Iterator[Item]]:
    """What an input says of itself, and its graphs.

    Raises:
        SgrlError: there is nothing to read.
    """
    path = Path(path)
    if holds_scores(path):
        folder = ScoreFolder(path)
        return Source(str(path), folder.vocabulary), _of_scores(folder, reading)
    if path.name == PREDICTIONS_FILE or (path / PREDICTIONS_FILE).is_file():
        path = path.parent if path.name == PREDICTIONS_FILE else path
        codec, vocabulary = _described(path)
        return Source(str(path), vocabulary), _together(_of_predictions(path, codec, vocabulary, reading), reading)
    if path.suffix == ".jsonl":
        if not path.is_file():
            raise SgrlError(f"{path} does not exist; expected a file of graphs in JSON lines")
        return Source(str(path)), _together(_of_lines(path, reading), reading)
    if path.is_dir() or path.suffix == ".parquet":
        metadata = data.read_metadata(path)
        vocabulary = data.vocabulary_of(metadata)
        rows = _of_rows(path, get_codec(metadata["codec"]), vocabulary, reading)
        return Source(str(path), vocabulary), _together(rows, reading)
    raise SgrlError(
        f"{path} is no input: expected a folder of predictions ({PREDICTIONS_FILE}), of scores (scores.parquet), "
        "a data set, or a file of graphs (.jsonl)"
    )


def _described(folder: Path) -> tuple[Codec, Vocabulary | None]:
    """Layout of the texts of a run, and its vocabulary: that of the model's task or of the data set, if it is here."""
    run = read_run_file(folder)
    if not isinstance(run.get("codec"), str):
        raise SgrlError(f'{folder / RUN_FILE} does not say the layout of the texts ("codec"); predict again')
    for key in ("model", "dataset"):
        place = run.get(key)
        if isinstance(place, str) and Path(place).exists():
            with suppress(SgrlError, KeyError, TypeError, ImportError):  # labels stay as they are written
                if key == "dataset":
                    return get_codec(run["codec"]), data.vocabulary_of(data.read_metadata(place))
                if (task := Task.find(place)) is not None:
                    return get_codec(run["codec"]), task.vocabulary
    return get_codec(run["codec"]), None


def _of_predictions(folder: Path, codec: Codec, vocabulary: Vocabulary | None, reading: Reading) -> Iterator[Frame]:
    path = folder / PREDICTIONS_FILE
    with open(path, "rb") as file:
        for number, line in _in_order(file):
            try:
                row = json.loads(line)
                graph = _written(row["prediction"], row, codec, vocabulary, reading.lost)
                yield _frame(row, graph, reading, row.get("tracks"))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                reading.tell(f"{path}, line {number}: {type(error).__name__}: {printable(error, 200)}")


def _in_order(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of the lines; those of a video together, by their frames, where its first line stands."""
    videos: dict[tuple[str, str], int] = {}
    places = array("q")  # of each line: first line of its video or itself, frame, offset
    start = 0
    for number, line in enumerate(file):
        first, frame = number, 0
        if b'"video_id"' in line:
            try:
                row = json.loads(line)
                if row["video_id"] is not None:
                    first = videos.setdefault((str(row.get("dataset")), str(row["video_id"])), number)
                    frame = min(max(int(row.get("frame") or 0), 0), 1 << 62)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
                pass  # said when it is read
        places.extend((first, frame, start))
        start += len(line)
    table = np.frombuffer(places, dtype=np.int64).reshape(-1, 3)
    order = np.lexsort((table[:, 2], table[:, 1], table[:, 0])) if videos else np.arange(len(table))
    for place in map(int, order):
        file.seek(table[place, 2])
        yield place + 1, file.readline()


def _of_rows(path: Path, codec: Codec, vocabulary: Vocabulary, reading: Reading) -> Iterator[Frame]:
    """The references of a data set. Images are not read."""
    import pyarrow.parquet as parquet

    names = ("dataset", "image_id", "solution", "width", "height", "video_id", "frame")
    splits = [reading.split] if reading.split or path.is_file() else data.splits(path)
    for split in splits:
        for file in data.files(path, split):
            opened = parquet.ParquetFile(file)
            number = 0
            for batch in opened.iter_batches(1000, columns=[n for n in names if n in opened.schema_arrow.names]):
                for row in batch.to_pylist():
                    try:
                        graph = _written(row["solution"], row, codec, vocabulary, reading.lost)
                        yield replace(_frame(row, graph, reading), split=split)
                    except (SgrlError, KeyError, TypeError) as error:
                        reading.tell(f"{file}, row {number}: {type(error).__name__}: {printable(error, 200)}")
                    number += 1


def _of_scores(folder: ScoreFolder, reading: Reading) -> Iterator[Item]:
    """Images and whole videos; frames of videos as they come."""

    def items() -> Iterator[Item]:
        for _, graph in folder.places(reading.tell):
            fps = graph.fps or reading.fps
            most = reading.relations or (None if graph.predicate_scores is None else RELATIONS)
            if graph.whole_video:
                video = graph.video(most, folder.vocabulary)
                sides = {"width": graph.width, "height": graph.height, "scores": graph.scores.tolist()}
                yield Video(graph.video_id or "", graph.dataset, (), video, graph.numbers, fps=fps, **sides)
            else:
                found = graph.graph(most, folder.vocabulary)
                reading.lost["relations that name no object or no predicate"] += int(
                    (graph.pairs < 0).any(axis=1).sum()
                )
                yield Frame(found, graph.dataset, graph.image_id or "", graph.video_id, graph.frame, fps)

    return _together(items(), reading)


def _of_lines(path: Path, reading: Reading) -> Iterator[Item]:
    """Graphs of images and videos as `--to jsonl` writes them."""
    with open(path, "rb") as file:
        for number, line in _in_order(file):
            if not line.strip():
                continue
            try:
                row = plain.parsed(line)
                yield (
                    _video(row, reading)
                    if "frames" in row
                    else _frame(row, SceneGraph.from_dict(row), reading, plain.check_tracks(row["objects"]))
                )
            except (SgrlError, TypeError, ValueError, AttributeError) as error:
                reading.tell(f"{path}, line {number}: {printable(error, 200)}")


def _written(
    text: str | None, row: Mapping, codec: Codec, vocabulary: Vocabulary | None, lost: Counter[str]
) -> SceneGraph:
    """The graph of a text with the confidences of its relations; labels in the official spelling if they have one."""

    def official(label: str) -> str:
        return (vocabulary and vocabulary.from_text(label)) or label

    if not isinstance(text, str | None):
        raise TypeError(f"the text must be a string or null, found {type(text).__name__}")
    parsed = read_text(text, codec, row["width"], row["height"])
    lost["answers without a graph"] += not parsed.labels
    scores = row.get("confidence")
    if not isinstance(scores, list) or len(scores) != len(parsed.relations):
        scores = [None] * len(parsed.relations)
    objects = [
        Object(official(label), box if all(map(math.isfinite, box)) else (0.0,) * 4)
        for label, box in zip(parsed.labels, parsed.boxes, strict=True)
    ]
    relations = []
    for (subject, predicate, target), score in zip(parsed.relations, scores, strict=True):
        if subject < 0 or target < 0 or not predicate:
            lost[NAMELESS] += 1
            continue
        group, predicate = ungrouped(predicate) if codec.grouped else (None, predicate)
        score = score if type(score) in (int, float) and math.isfinite(score) else None
        relations.append(Relation(subject, official(predicate), target, group, score=score))
    return SceneGraph(objects, relations, row["width"], row["height"])


def _frame(row: Mapping, graph: SceneGraph, reading: Reading, tracks: list | None = None) -> Frame:
    video, number = row.get("video_id"), row.get("frame")
    if not (tracks and len(tracks) == len(graph.objects) and any(track is not None for track in tracks)):
        tracks = None
    return Frame(
        graph,
        str(row.get("dataset") or ""),
        str(row.get("image_id") or ""),
        None if video is None else str(video),
        int(number) if isinstance(number, int) else None,
        None if video is None else _rate(row.get("fps")) or reading.fps,
        row["split"] if isinstance(row.get("split"), str) else None,
        None if tracks is None else tuple(tracks),
    )


def _video(row: Mapping, reading: Reading) -> Video:
    graph = VideoGraph.from_dict(row)
    numbers = row.get("numbers", range(row["frames"]))
    if len(numbers) != row["frames"] or not all(type(number) is int for number in numbers):
        raise SgrlError(f"numbers must be those of the {row['frames']} frames")
    scores = [entry.get("score") for entry in row["objects"]]
    return Video(
        str(row.get("video_id") or ""),
        str(row.get("dataset") or ""),
        graph=graph,
        numbers=numbers,
        width=int(row.get("width") or 1),
        height=int(row.get("height") or 1),
        scores=scores if any(score is not None for score in scores) else None,
        fps=_rate(row.get("fps")) or reading.fps,
        split=row.get("split"),
    )


def _rate(value) -> float | None:
    """Frames per second, None for what is none."""
    return float(value) if type(value) in (int, float) and 0 < value < math.inf else None


def _together(items: Iterable[Item], reading: Reading) -> Iterator[Item]:
    """The same, frames of one video that follow each other as a Video."""
    seen: set[tuple[str, str | None]] = set()

    def video_of(item: Item) -> tuple[str, str] | None:
        if isinstance(item, Video) or item.video_id is None:
            return None
        return item.dataset, item.video_id

    for key, group in groupby(items, video_of):
        if key is None:
            yield from group
            continue
        if key in seen:
            reading.lost["parts of videos that stand apart from the rest, and are taken for videos of their own"] += 1
        seen.add(key)
        frames = _tracked([item for item in group if isinstance(item, Frame)])
        yield Video(key[1], key[0], frames, fps=frames[0].fps, split=frames[0].split)


def _tracked(frames: list[Frame]) -> tuple[Frame, ...]:
    """The frames of a video, with tracks."""
    if any(frame.tracks for frame in frames):
        return tuple(frames)
    tracks = link([frame.graph for frame in frames])
    return tuple(
        replace(frame, tracks=tuple(number + 1 for number in numbers))
        for frame, numbers in zip(frames, tracks, strict=True)
    )
