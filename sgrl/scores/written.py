"""Graphs that models wrote, as scored predictions: one table for both kinds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from sgrl.errors import SgrlError
from sgrl.graph import SceneGraph
from sgrl.scores.graph import ScoredGraph
from sgrl.text import Codec, FormatError, ParsedGraph, get_codec


def from_text(
    prediction: str | ParsedGraph | SceneGraph | None,
    codec: str | Codec,
    width: int,
    height: int,
    *,
    confidences: Sequence[float | None] | None = None,
    **names,
) -> ScoredGraph:
    """What a model wrote, as metrics read it: its relations in the order of writing, confidences as their scores.

    Args:
        prediction: a text, read leniently; what a codec has read; or None, which has no objects. A SceneGraph: as
            `from_graph`.
        codec: of the text. width, height: frame of its boxes.
        confidences: one for each relation that the codec reads; None where unknown. Of another number they are not
            used: the order of writing ranks.
        names: dataset, image_id, video_id, frame.

    Raises:
        TypeError: a prediction that is none of these.
    """
    if isinstance(prediction, SceneGraph):
        return from_graph(prediction, **names)
    if not isinstance(prediction, str | ParsedGraph | None):
        found = type(prediction).__name__
        raise TypeError(f"a prediction must be a text, SceneGraph, ParsedGraph or None, found {found}")
    graph = (
        prediction if isinstance(prediction, ParsedGraph) else read_text(prediction, get_codec(codec), width, height)
    )
    labels, boxes, relations = graph
    if not isinstance(confidences, Sequence) or len(confidences) != len(relations):
        confidences = None
    else:
        confidences = [
            x if x is not None and type(x) in (int, float) and math.isfinite(x) else None for x in confidences
        ]
    return ScoredGraph(
        width=int(width),
        height=int(height),
        labels=labels,
        boxes=[box if all(map(math.isfinite, box)) else (0.0,) * 4 for box in boxes],
        pairs=[(subject, target) for subject, _, target in relations],
        predicates=[predicate for _, predicate, _ in relations],
        relation_scores=confidences,
        written=True,
        **names,
    )


def from_graph(graph: SceneGraph, **names) -> ScoredGraph:
    """A graph with the scores that its objects and relations have (1 and unknown without); names as in `from_text`."""
    scores = [r.score for r in graph.relations]
    return ScoredGraph(
        width=graph.width,
        height=graph.height,
        labels=[o.label for o in graph.objects],
        boxes=graph.boxes,
        scores=[1.0 if o.score is None else o.score for o in graph.objects],
        pairs=[(r.subject, r.object) for r in graph.relations],
        predicates=[r.predicate if r.group is None else f"{r.group}__{r.predicate}" for r in graph.relations],
        relation_scores=scores if any(score is not None for score in scores) else None,
        spans=[() if r.span is None else (r.span,) for r in graph.relations],
        **names,
    )


def from_predictions(
    folder: str | Path, codec: str | Codec | None = None, damaged: Callable[[str], None] | None = None
) -> Iterator[ScoredGraph]:
    """The predictions of a run (recipes/evaluate.py, recipes/predict.py) one by one.

    Args:
        folder: with predictions.jsonl, or that file: rows with image_id, prediction, width, height, and perhaps
            dataset, video_id, frame, confidence.
        codec: of the texts; that of the run's run.json unless given.
        damaged: told of each line that cannot be used, which is left out; without it such a line raises.

    Raises:
        SgrlError: no such file, no codec, or a line that cannot be used.
    """
    path = Path(folder)
    path = path / "predictions.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise SgrlError(f"{path} does not exist; expected the folder of a run")
    if codec is None:
        try:
            codec = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))["codec"]
        except (OSError, ValueError, KeyError, TypeError):
            raise SgrlError(f"{path.parent / 'run.json'} does not say the layout of the texts; give codec=") from None
    codec = get_codec(codec)
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                graph = _of_row(json.loads(line), codec)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                place = f"{path}, line {number}: {type(error).__name__}: {str(error)[:200]}"
                if damaged is None:
                    raise SgrlError(place) from None
                damaged(place)
                continue
            yield graph


def _of_row(row: Mapping, codec: Codec) -> ScoredGraph:
    return from_text(
        row["prediction"],
        codec,
        row["width"],
        row["height"],
        confidences=row.get("confidence"),
        dataset=str(row.get("dataset") or ""),
        image_id=str(row["image_id"]),
        video_id=None if row.get("video_id") is None else str(row["video_id"]),
        frame=row.get("frame"),
    )


def read_text(text: str | None, codec: Codec, width: int, height: int) -> ParsedGraph:
    """What a model wrote, read leniently; nothing for None."""
    if text is None:
        return ParsedGraph([], [], [])
    try:  # what the strict reader takes, the lenient one reads alike, in three times as long
        return codec.parse(text, width, height)
    except FormatError:
        return codec.recover_parsed(text, width, height)[0]
