"""A detector of scene graphs (VOST-SGG) as a predictor: frames in; scored pairs, and a graph as text, out."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch

from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.inference.given import WrongImage, as_image, frames_of
from sgrl.inference.prediction import Prediction
from sgrl.linking import Tracker
from sgrl.models.detection.images import to_bytes
from sgrl.models.vost.config import VostConfig
from sgrl.models.vost.data import collate
from sgrl.models.vost.inputs import Labels, Texts, said
from sgrl.models.vost.modeling import VostForSceneGraphs
from sgrl.models.vost.postprocess import Detections, detections, written_graph
from sgrl.models.vost.priors import TEXT
from sgrl.models.vost.temporal import reference_frames
from sgrl.scores import ScoredGraph
from sgrl.task import Task, find_file
from sgrl.terminal import printable
from sgrl.text import answer, get_codec

Clip = Sequence[dict[str, Any]]
"""A frame as the model takes it (see `Frames.frame`), and behind it those that it looks at."""


class Found(NamedTuple):
    """What the model says of a frame: all pairs, and the graph that is written of them."""

    pairs: Detections
    prediction: Prediction


@dataclass(frozen=True)
class DetectorSettings:
    """How a detector runs, and what it writes.

    batch_size: clips at a time. min_score: of a relation that is written, None: as the model says. max_pairs: that are
    written.
    """

    batch_size: int | None = None
    min_score: float | None = None
    max_pairs: int = 30


class SceneGraphDetector:
    """A `SceneGraphPredictor` that finds boxes and relations itself. Of an image of one's own no language model has
    said anything: it gets no priors.

    Args:
        model, processor: of the folder. task: what its scene_graph.json says.
        texts: vectors of the labels, which priors and boxes that are given need.
        settings: see there.

    Attributes:
        vocabulary, codec: of the graphs. batch_size, min_score, max_pairs: what holds.
    """

    def __init__(
        self,
        model: VostForSceneGraphs,
        processor: Any,
        task: Task,
        texts: Texts,
        settings: DetectorSettings = DetectorSettings(),  # noqa: B008
    ):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = model.to(self.device).eval()
        self.processor, self.task, self.texts, self.config = processor, task, texts, model.config
        self.vocabulary, self.codec = model.config.labels, get_codec(task.codec)
        if not self.codec.grouped:
            raise SgrlError(f"the task's layout {task.codec!r} has no groups of relations; expected toon-pairs")
        self.batch_size = settings.batch_size or (8 if self.device.type == "cpu" else 16)
        self.min_score = model.config.min_score if settings.min_score is None else settings.min_score
        self.max_pairs = settings.max_pairs

    def __call__(self, images: Any, *, bgr: bool = False) -> Any:
        """See `SceneGraphPredictor`."""
        if isinstance(images, list | tuple):
            return list(self.each(images, bgr=bgr))
        (found,) = self.each([images], bgr=bgr)
        if found.error is not None:
            raise SgrlError(f"the image got no graph: {found.error}")
        return found

    def each(self, images: Iterable[Any], *, bgr: bool = False) -> Iterator[Prediction]:
        """The graphs of any number of images, in their order; each is looked at alone."""
        images = iter(images)
        while chunk := list(itertools.islice(images, self.batch_size)):
            opened = [_opened(image, bgr) for image in chunk]
            frames = [(self.frame(one), one.size) for one in opened if not isinstance(one, Prediction)]
            clips = [[frame] * len(self.places(1, 0)) for frame, _ in frames]
            done = iter(self.detect(clips, [size for _, size in frames]))
            yield from (one if isinstance(one, Prediction) else next(done).prediction for one in opened)

    def stream(self, frames: Any, *, bgr: bool = False) -> Iterator[Prediction]:
        """See `SceneGraphPredictor`. With the temporal stage a frame looks at those before it."""
        tracker, last = Tracker(), deque[dict[str, Any]](maxlen=self.config.window + 1)
        size = None
        for image in frames_of(frames):
            start = time.perf_counter()
            opened = _opened(image, bgr)
            if isinstance(opened, Prediction):
                yield replace(opened, tracks=())
                continue
            if opened.size != size:  # another camera, or turned: places of before mean nothing
                tracker.forget()
                last.clear()
            size = opened.size
            last.append(self.frame(opened))
            clip = [last[i] for i in self.places(len(last), len(last) - 1)]
            (found,) = self.detect([clip], [opened.size])
            tracks = tracker.update(found.prediction.graph)
            yield replace(found.prediction, tracks=tracks, seconds=time.perf_counter() - start)

    def frame(self, image: Any) -> dict[str, Any]:
        """An image of one's own as the model takes it, with nothing said of it.

        Raises:
            SgrlError: the model wants boxes of a reference.
        """
        if self.config.given is not None:
            raise SgrlError(
                f"this detector was trained for {self.config.task}: it is given boxes, which an image alone has not; "
                "evaluate it on a data set (sgrl detect --dataset), or train one with task: sgdet"
            )
        visual = self.config.visual_size if self.config.bank == "full" else None
        told = said([], None, self.texts.labels, visual)
        frame = {"pixel_values": to_bytes(image, self.processor), "priors": told, "target": {}}
        return frame | {"texts": self.texts, "processor": self.processor, "image_id": ""}

    def places(self, frames: int, index: int) -> list[int]:
        """Of a video with so many frames: the frame itself, and behind it those that it looks at."""
        if not self.config.temporal:
            return [index]
        return [index, *reference_frames(frames, index, self.config.references, self.config.window)]

    def detect(self, clips: Sequence[Clip], sizes: Sequence[tuple[int, int]]) -> list[Found]:
        """What the model says of the first frame of each clip.

        sizes: width and height of the frames' coordinates.
        """
        found: list[Found] = []
        for first in range(0, len(clips), self.batch_size):
            some = slice(first, first + self.batch_size)
            start = time.perf_counter()
            batch = collate([list(clip) for clip in clips[some]])
            priors = {name: value.to(self.device) for name, value in batch["priors"].items()}
            images, mask = (batch[name].to(self.device) for name in ("pixel_values", "pixel_mask"))
            with torch.inference_mode():
                outputs = dict(self.model(images, mask, priors).items())
            of_frames = detections(outputs, sizes[some], self.vocabulary)
            each = (time.perf_counter() - start) / len(of_frames)
            found += [
                Found(pairs, self.written(pairs, *size, seconds=each))
                for pairs, size in zip(of_frames, sizes[some], strict=True)
            ]
        return found

    def written(self, pairs: Detections, width: int, height: int, seconds: float = 0.0) -> Prediction:
        """The graph of the pairs that are likely enough, as an object and as text with a confidence per relation."""
        graph = written_graph(pairs, self.vocabulary, width, height, self.min_score, self.max_pairs)
        name = self.vocabulary.to_text
        objects = [Object(name(o.label), _inside(o.box, width, height), o.score) for o in graph.objects]
        relations = [Relation(r.subject, name(r.predicate), r.object, r.group, score=r.score) for r in graph.relations]
        graph = SceneGraph(objects, relations, width, height)
        text = answer.wrap(self.codec.encode(graph))
        scores = {(r.subject, f"{r.group}__{r.predicate}", r.object): r.score for r in relations}
        parsed, _ = self.codec.recover_parsed(text, width, height)
        confidence = [scores.get(relation) for relation in parsed.relations]
        return Prediction(graph, text, text, confidence, seconds=seconds)

    def close(self) -> None:
        """Free the model's memory. It can't be used afterwards."""
        self.model = None

    def __enter__(self) -> SceneGraphDetector:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def scored_graph(pairs: Detections, width: int, height: int, **names: Any) -> ScoredGraph:
    """All pairs as a scored prediction. names: dataset, image_id, video_id, frame."""
    return ScoredGraph(width=width, height=height, **pairs._asdict(), **names)


def load_vost(model: str, engine: str, task: Task, **settings: Any) -> SceneGraphDetector:
    """The loader of KINDS for folders of recipes/vost/train.py.

    Raises:
        SgrlError: weights that cannot be loaded, an engine for language models, a setting that there is not.
    """
    from safetensors import SafetensorError
    from transformers import DetrImageProcessor

    if engine not in ("auto", "transformers"):
        raise UsageError(f"{model} is a detector, which the engine {engine!r} does not run; leave it out")
    names = [field.name for field in fields(DetectorSettings)]
    for name in settings:
        if name not in names:
            raise UsageError(f"unknown setting {name!r}{suggest(name, names)}")
    try:
        loaded: Any = VostForSceneGraphs.from_pretrained(model, trust_remote_code=False)
        processor = DetrImageProcessor.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SgrlError(
            f"{model} cannot be loaded as a detector ({printable(error, 200)}); copy the folder again"
        ) from None
    return SceneGraphDetector(loaded, processor, task, _texts(model, loaded.config), DetectorSettings(**settings))


def _texts(model: str, config: VostConfig) -> Texts:
    """The vectors of labels that the model was trained with; zeros where it was trained without."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path, tables = find_file(model, TEXT), (None, None)
    try:
        if path is not None:
            found = load_file(path)
            tables = found["objects"], found["predicates"]
    except (SafetensorError, KeyError, OSError) as error:
        raise SgrlError(f"{path} is damaged ({printable(error, 100)}); copy the folder again") from None
    return Texts.of(Labels(config.labels), config.text_size, *tables)


def _opened(image: Any, bgr: bool) -> Any:
    """The image, or the prediction of one that does not open."""
    try:
        return as_image(image, bgr)
    except WrongImage:
        raise
    except SgrlError as error:
        return Prediction.of_unreadable(error)


def _inside(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    x1, x2 = (min(max(value, 0.0), float(width)) for value in (box[0], box[2]))
    y1, y2 = (min(max(value, 0.0), float(height)) for value in (box[1], box[3]))
    return x1, y1, x2, y2
