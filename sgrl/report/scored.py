"""Folders of scored predictions as runs to look at: of each image the surest relations, and the objects in them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from sgrl import data
from sgrl.errors import SgrlError
from sgrl.inference.predictions import Key
from sgrl.report.pictures import find
from sgrl.report.runs import Run, keep, read_run
from sgrl.report.verdicts import hits
from sgrl.scores import ScoredGraph, ScoreFolder, holds_scores
from sgrl.terminal import printable
from sgrl.text import Codec, ParsedGraph
from sgrl.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

RELATIONS, OBJECTS = 20, 10
"""The surest relations that are shown; without any, the surest objects."""


class _Place(NamedTuple):
    """Where an image's prediction is: a row of the files, and of a whole video the position of the frame."""

    row: tuple[int, int, int]
    position: int | None


class _Scores(NamedTuple):
    """What a run of scored predictions is read from."""

    folder: ScoreFolder
    places: dict[Key, _Place]
    dataset: str
    split: str


def open_run(name: str, folder: str | Path, dataset: str | None = None) -> Run:
    """A run of texts (see `read_run`), or a folder of scored predictions, which `python -m rewards score --output
    FOLDER/metrics.json` gives its figures.

    dataset: in place of the one that the scores name.
    """
    folder = Path(folder)
    if (folder / "predictions.jsonl").is_file() or not holds_scores(folder):
        return read_run(name, folder)
    scores = ScoreFolder(folder)
    about = scores.about
    path, split = dataset or find(str(scores.dataset), folder), str(about.get("split") or "test")
    info = {"model": about.get("model"), "command": about.get("command"), "versions": scores.versions}
    info |= {"dataset": path, "split": split, "dataset_fingerprint": scores.fingerprint}
    run = Run(name, folder, {}, info)
    if (folder / "metrics.json").is_file():
        try:
            run.metrics = dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise SgrlError(f"{folder / 'metrics.json'} is not readable ({error}); score the folder again") from None
    places = _places(scores, path, split)
    for row in _columns(path, split, ("dataset", "image_id", "video_id", "frame")):
        key = str(row["dataset"]), str(row["image_id"])
        if key in places:
            run.keys.append(key)
            if row.get("video_id") is not None:
                run.places[key] = str(row["video_id"]), int(row.get("frame") or 0)
    if not run.keys:
        raise SgrlError(f"{folder} predicts no image of {path}, split {split!r}; give the data set with --dataset")
    run.scores = _Scores(scores, places, path, split)
    return run


def keep_rows(run: Run, keys: Iterable[Key], codec: Codec) -> None:
    """Read the rows of these keys into `run.rows`, of scored predictions with `graph` and `matched`."""
    if run.scores is None:
        keep(run, keys)
        return
    scores, wanted = run.scores, set(keys)
    run.rows = {}
    for row in _columns(scores.dataset, scores.split, ("dataset", "image_id", "solution", "width", "height")):
        key = str(row["dataset"]), str(row["image_id"])
        if key in wanted:
            place = scores.places[key]
            graph = scores.folder.get(place.row).resized(row["width"], row["height"])
            if place.position is not None:
                graph = graph.at(place.position, image_id=key[1])
            run.rows[key] = row | _shown(graph, scores.folder.vocabulary)
            truth = codec.recover_parsed(row["solution"], row["width"], row["height"])[0]
            run.rows[key]["matched"] = hits(run.rows[key]["graph"], truth)


def graph_of(row: Mapping, codec: Codec) -> tuple[ParsedGraph, list[str]]:
    """The graph of a row and what was wrong with its text: of a scored prediction as it is, else read leniently."""
    if "graph" in row:
        return row["graph"], []
    return codec.recover_parsed(row["prediction"] or "", row["width"], row["height"])


def _shown(graph: ScoredGraph, vocabulary: Vocabulary) -> dict:
    """graph, confidence and prediction (a list of the relations) of a row."""

    def text(predicate: str) -> str:
        group, sign, name = predicate.rpartition("__")
        return f"{group}{sign}{vocabulary.to_text(name)}"

    best = [triplet for triplet in graph.best(RELATIONS, vocabulary) if min(triplet.subject, triplet.object) >= 0]
    used = sorted({end for triplet in best for end in (triplet.subject, triplet.object)})
    if not best:
        used = sorted(range(len(graph.labels)), key=lambda i: -graph.scores[i])[:OBJECTS]
    place = {old: new for new, old in enumerate(used)}
    labels = [vocabulary.to_text(graph.labels[i]) for i in used]
    relations = [(place[s], text(p), place[o]) for s, p, o, _, _ in best]
    lines = [
        f"{labels[s]} {s + 1}  {p}  {labels[o]} {o + 1}" + ("" if t.score is None else f"  {t.score:.3f}")
        for (s, p, o), t in zip(relations, best, strict=True)
    ]
    parsed = ParsedGraph(labels, [tuple(graph.boxes[i].tolist()) for i in used], relations)
    return {"graph": parsed, "confidence": [triplet.score for triplet in best], "prediction": "\n".join(lines)}


def _places(scores: ScoreFolder, path: str, split: str) -> dict[Key, _Place]:
    """Where the images of a data set are predicted, alone or in a whole video."""
    images: dict[str, list[Key]] = {}
    videos: dict[str, list[tuple[Key, int]]] = {}
    for row in _columns(path, split, ("dataset", "image_id", "video_id", "frame")):
        key = str(row["dataset"]), str(row["image_id"])
        images.setdefault(key[1], []).append(key)
        if row.get("video_id") is not None:
            videos.setdefault(str(row["video_id"]), []).append((key, row["frame"]))
    damaged: list[str] = []
    found: dict[Key, _Place] = {}
    for place, graph in scores.places(damaged.append):
        dataset, name = graph.key
        if graph.whole_video:
            position = {number: i for i, number in enumerate(graph.numbers)}
            for key, frame in videos.get(name, ()):
                if dataset in ("", key[0]) and frame in position:
                    found.setdefault(key, _Place(place, position[frame]))
            continue
        for key in images.get(name, ()):
            if dataset in ("", key[0]):
                found[key] = _Place(place, None)
    if damaged:
        logger.warning("%s: %d damaged rows are left out: %s", scores.folder, len(damaged), printable(damaged[0], 200))
    return found


def _columns(path: str, split: str, names: tuple[str, ...]) -> Iterable[dict]:
    """Columns of a data set, those that it has, row by row."""
    import pyarrow.parquet as parquet

    for file in data.files(path, split):
        opened = parquet.ParquetFile(file)
        for batch in opened.iter_batches(columns=[name for name in names if name in opened.schema_arrow.names]):
            yield from batch.to_pylist()
