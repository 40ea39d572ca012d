"""From frames to a folder of a detector's predictions: written graphs, as language models' have it, and all scored
pairs beside them.

    OUTPUT/run.json, predictions.jsonl   see `PredictionFolder`
    OUTPUT/scores/scores.parquet         see `sgrl.scores`
"""

from __future__ import annotations

import itertools
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sgrl.arguments import program_words
from sgrl.errors import SgrlError
from sgrl.files import fingerprint
from sgrl.graph import SceneGraph
from sgrl.inference.detector import Clip, SceneGraphDetector, scored_graph
from sgrl.inference.pair_questions import graph_of
from sgrl.inference.predictions import Key, PredictionFolder, model_fingerprint, write_usage
from sgrl.inference.rows import DatasetRows, FileRows
from sgrl.inference.video import ahead
from sgrl.models.vost.data import Clips, Frames
from sgrl.models.vost.priors import ABOUT, ROWS, Priors
from sgrl.progress import Progress
from sgrl.scores import ScoreWriter, holds_scores, read_scores
from sgrl.versions import installed

logger = logging.getLogger(__name__)

SCORES = "scores"
IDENTITY = ("model_fingerprint", "dataset_fingerprint", "split", "priors_fingerprint", "min_score", "max_pairs")


@dataclass(frozen=True)
class Row:
    """A frame to look at: its line without a prediction, and what the model takes."""

    kept: dict[str, Any]
    clip: Clip


class DatasetSource:
    """The frames of a split, with their priors.

    Args:
        detector: whose frames these are. dataset, split: that data_prep/to_toon.py wrote. priors: None without.
        limit: the first so many frames.

    Attributes:
        keys: of the frames. rows: see `DatasetRows`. fingerprint: of the files.
    """

    def __init__(
        self, detector: SceneGraphDetector, dataset: str, split: str, priors: Priors | None, limit: int | None = None
    ):
        self.rows = DatasetRows(dataset, split, limit)
        self.keys, self.fingerprint, self.split = self.rows.keys, self.rows.fingerprint, split
        self.name, self.priors = dataset, priors
        config = detector.config
        self._frames = Frames(dataset, split, config, detector.processor, priors)
        texts = detector.texts
        if priors is None:
            self._frames.texts = texts  # those that the model was trained with
        elif bool(texts.objects.any()) and not np.allclose(texts.objects, priors.objects, atol=1e-3):
            raise SgrlError(
                f"{priors.folder} has other vectors of the labels than the model was trained with; extract priors "
                "with the same --encoder"
            )
        self._place = {key[1]: index for index, key in enumerate(self.keys)}
        self._clips = Clips(self._frames) if config.temporal else None
        numbers = self._frames.rows
        self._numbers = numbers["frame"] if "frame" in numbers.column_names else [None] * len(numbers)

    def row(self, index: int) -> Row:
        """Raises SgrlError for an image that does not open; a reference that does not is the frame itself."""
        frame = self._frames[index]
        clip = [frame]
        for place in self._clips.references(index) if self._clips else ():
            try:
                clip.append(self._frames.frame(place))
            except SgrlError as error:
                logger.warning("%s", error)
                clip.append(frame)
        kept = {name: value for name, value in self.rows.unanswered(index).items() if name != "prediction"}
        return Row(_placed(kept, self.rows.videos[index], self._numbers[index]), clip)

    def told(self, image_id: str) -> SceneGraph | None:
        """What was said of a frame as a graph, in boxes of the frame's row; None where nothing is known of it."""
        found = None if self.priors is None else self.priors.get(image_id)
        if found is None:
            return None
        row = self.rows.unanswered(self._place[image_id])
        return graph_of(found.pairs, self._frames.config.labels, row["width"], row["height"])


class FileSource:
    """Images, folders and videos of one's own; with the temporal stage a folder is a video.

    Args: see `FileRows`.
    """

    split = None

    def __init__(self, detector: SceneGraphDetector, paths: Sequence[str], every: int = 1, limit: int | None = None):
        self.rows = FileRows(paths, None, bool(detector.config.temporal), every, limit)
        self.keys, self.fingerprint, self.name = self.rows.keys, self.rows.fingerprint, self.rows.name
        self._detector = detector
        videos: dict[object, list[int]] = {}
        for index, video in enumerate(self.rows.videos):
            videos.setdefault(index if video is None else video, []).append(index)
        self._around = {index: (rows, place) for rows in videos.values() for place, index in enumerate(rows)}
        self._frame = lru_cache(maxsize=4 * detector.config.window + 2)(self._read)

    def _read(self, index: int) -> tuple[dict[str, Any], tuple[int, int]]:
        picture = self.rows.picture(index)
        return self._detector.frame(picture), picture.size

    def row(self, index: int) -> Row:
        """Raises SgrlError for an image that does not open; a reference that does not is the frame itself."""
        frame, (width, height) = self._frame(index)
        rows, place = self._around[index]
        clip = []
        for i in self._detector.places(len(rows), place):
            try:
                clip.append(self._frame(rows[i])[0])
            except SgrlError:  # said when its turn comes
                clip.append(frame)
        dataset, name = self.keys[index]
        kept = {"dataset": dataset, "image_id": name, "solution": None, "width": width, "height": height}
        return Row(_placed(kept, self.rows.videos[index], self.rows.frames[index]), clip)


Source = DatasetSource | FileSource


def detect(detector: SceneGraphDetector, source: Source, model: str, output: Path) -> tuple[PredictionFolder, dict]:
    """Look at each frame that has no prediction yet.

    Returns: the written graphs, and the frames that got none with the reason; the same command tries these again.

    Raises:
        SgrlError: the folder belongs to another run.
    """
    priors = getattr(source, "priors", None)
    run: dict[str, Any] = {
        "model": model,
        "model_fingerprint": model_fingerprint(model),
        "dataset": source.name if source.split else None,
        "dataset_fingerprint": source.fingerprint,
        "split": source.split,
        "codec": detector.codec.name,
        "engine": "detector",
        "task": detector.config.task,
        "priors": None if priors is None else str(priors.folder),
        "priors_fingerprint": None if priors is None else fingerprint([priors.folder / ABOUT, priors.folder / ROWS]),
        "min_score": detector.min_score,
        "max_pairs": detector.max_pairs,
        "command": shlex.join(program_words(sys.argv[1:])),
        "versions": installed(),
    }
    if not source.split:
        run["input"] = source.name
    folder, failed = PredictionFolder(output, run, IDENTITY), {}
    if not holds_scores(output / SCORES) or not folder.keys.issuperset(source.keys):
        with ScoreWriter(
            output / SCORES, detector.vocabulary, dataset=source.name, fingerprint=source.fingerprint,
            about={"model": model, "split": source.split, "run": run["model_fingerprint"]}, resume=True,
        ) as writer:  # fmt: skip
            failed = _Pass(detector, source, folder, writer).run()
    write_usage(folder)
    return folder, failed


class _Pass:
    """One pass over the frames of a run."""

    def __init__(self, detector: SceneGraphDetector, source: Source, folder: PredictionFolder, writer: ScoreWriter):
        self.detector, self.source, self.folder, self.writer = detector, source, folder, writer
        self.failed: dict[Key, str] = {}

    def run(self) -> dict[Key, str]:
        written, scored = self.folder.keys, set(self.writer.done)
        if holds_scores(self.writer.folder):  # of a pass that ended, but for images that did not open
            for graph in read_scores(self.writer.path):
                if graph.key not in scored:
                    self.writer.add(graph)
                    scored.add(graph.key)
        todo = [i for i, key in enumerate(self.source.keys) if key not in written or key not in scored]
        total = len(self.source.keys)
        output = self.folder.folder
        with Progress(output.name, total, "image", done=total - len(todo), where=output) as progress:
            for count, rows in ahead(self._loaded(todo)):
                sizes = [(row.kept["width"], row.kept["height"]) for row in rows]
                found = self.detector.detect([row.clip for row in rows], sizes)
                for row, (pairs, prediction) in zip(rows, found, strict=True):
                    key = row.kept["dataset"], row.kept["image_id"]
                    if key not in written:
                        line = {"prediction": prediction.answer, "seconds": round(prediction.seconds, 6)}
                        line |= {"finish_reason": "stop", "confidence": prediction.confidence}
                        self.folder.append([row.kept | line])
                    if key not in scored:
                        names = ("dataset", "image_id", "video_id", "frame", "width", "height")
                        self.writer.add(scored_graph(pairs, **{n: row.kept[n] for n in names if n in row.kept}))
                progress.update(count)
        return self.failed

    def _loaded(self, todo: Sequence[int]) -> Iterator[tuple[int, list[Row]]]:
        places = iter(todo)
        while some := list(itertools.islice(places, self.detector.batch_size)):
            rows = []
            for index in some:
                try:
                    rows.append(self.source.row(index))
                except SgrlError as error:
                    logger.warning("%s", error)
                    self.failed[self.source.keys[index]] = str(error)
            yield len(some), rows


def _placed(kept: dict[str, Any], video: str | None, frame: int | None) -> dict[str, Any]:
    """With its place in a video, if it has one."""
    return kept | {name: value for name, value in (("video_id", video), ("frame", frame)) if value is not None}
