"""What is predicted of one image, frame or video: objects, the pairs that were judged, and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import numpy as np

from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.terminal import printable
from sgrl.text import ParsedGraph
from sgrl.tubes import BoxTube, MaskTube, Span, TimedRelation, TubeObject, VideoGraph, runs
from sgrl.vocabulary import Vocabulary

_ABOVE_ONE = 1e-6
"""How much a probability may exceed 1: the softmax of 32-bit numbers does."""

SEPARATOR = "__"
"""Between group and predicate."""


class ScoreError(SgrlError):
    """A scored prediction that cannot be: the message names the image and the field."""


def fault(image_id: str | None, video_id: str | None, field: str, found: str, expected: str) -> ScoreError:
    """The error of a field of an image, or of a whole video."""
    what, name = ("video", video_id) if image_id is None else ("image", image_id)
    return ScoreError(f"{what} {printable(name, 80)!r}, {field}: found {found}; expected {expected}")


class Triplet(NamedTuple):
    """One relation of a scored graph: positions of subject and object, the predicate, what ranks it, when it holds."""

    subject: int
    predicate: str
    object: int
    score: float | None
    spans: tuple[Span, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredGraph:
    """Objects and relations with scores, of one image, one frame of a video, or one whole video.

    Arrays, lists and tensors on the CPU are taken, and turned into numpy arrays. N is the number of objects, R of
    pairs, P of the vocabulary's predicates, C of its objects, T of a video's frames.

    Args:
        dataset, image_id: name an image or a frame, as in the data set. A whole video has no image_id.
        video_id: of the video that a frame belongs to, or of the whole video.
        frame: number of a frame in its video.
        width, height: of the image in pixels; boxes are scaled by it where the references are of another size.
        labels: N names of the vocabulary. boxes: (N, 4), x1, y1, x2, y2 in pixels; for a whole video `tubes` instead,
            N MaskTube or N BoxTube of one length. scores: (N,) in [0, 1]; all 1 unless given.
        label_scores: (N, C), the distribution over the vocabulary's objects, without background.
        pairs: (R, 2) positions of subject and object, every pair that was judged.
        predicate_scores: (R, P) in [0, 1], after softmax or sigmoid, without background; a column for each predicate
            of the vocabulary in its order (`by_group` joins those of groups). A triplet ranks by the product of the
            scores of its subject, its object and its predicate.
        predicates, relation_scores: in its place one predicate for each pair and (R,) what ranks it, in [0, 1], NaN or
            None where unknown; without relation_scores their order ranks.
        spans: for each pair when its relations hold: pairs of first and last frame, from 0, both included; () always.
        frames: numbers of the T frames of a whole video, if not 0 to T - 1. fps: of those numbers, for seconds.
        written: a graph that a model wrote as text, with labels of its own; a relation may name no object (-1).

    Raises:
        ScoreError: fields that do not fit together, numbers that are not finite or out of range, pairs that name no
            object. What only the vocabulary can tell is found by `VocabularyCheck`.
    """

    # `| Any`: given as whatever makes an array, and kept as one, or None where it is not there
    width: int
    height: int
    dataset: str = ""
    image_id: str | None = None
    video_id: str | None = None
    frame: int | None = None
    labels: Sequence[str] = ()
    boxes: np.ndarray | Any = None
    tubes: Sequence[MaskTube] | Sequence[BoxTube] | Any = None
    scores: np.ndarray | Any = None
    label_scores: np.ndarray | Any = None
    pairs: np.ndarray | Any = ()
    predicate_scores: np.ndarray | Any = None
    predicates: Sequence[str] | Any = None
    relation_scores: np.ndarray | Any = None
    spans: Sequence[tuple[Span, ...]] | Any = None
    frames: Sequence[int] | None = None
    fps: float | None = None
    written: bool = False

    def __post_init__(self):
        for name in ("labels", "tubes", "predicates", "spans", "frames"):
            value = getattr(self, name)
            self._set(name, None if value is None else tuple(value))
        self._check_names()
        self._check_objects()
        self._check_relations()

    @property
    def key(self) -> tuple[str, str]:
        """What names it: the data set, and the image, or the video of a whole video."""
        name = self.video_id if self.image_id is None else self.image_id
        return self.dataset, name or ""

    @property
    def whole_video(self) -> bool:
        return self.tubes is not None

    @property
    def length(self) -> int:
        """T of a whole video, 1 of an image."""
        if self.tubes is None:
            return 1
        return max((tube.frames for tube in self.tubes), default=len(self.frames or ()))

    @property
    def numbers(self) -> Sequence[int]:
        """Of the T frames of a whole video, as the data set counts them."""
        return range(self.length) if self.frames is None else self.frames

    @property
    def masked(self) -> bool:
        """Whether it is a whole video with masks."""
        return bool(self.tubes) and isinstance(self.tubes[0], MaskTube)

    def best(self, most: int | None = None, vocabulary: Vocabulary | None = None) -> list[Triplet]:
        """Its relations, best first, equal ones in order; those without a score last.

        Args:
            most: how many at most.
            vocabulary: names the columns of predicate_scores; predicates in groups become "<group>__<label>".
        """
        spans = self.spans or ((),) * len(self.pairs)
        grouped = _grouped(vocabulary)
        if self.predicate_scores is None:
            scores = np.full(len(self.pairs), np.nan) if self.relation_scores is None else self.relation_scores
            order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[:most].tolist()
            return [
                Triplet(
                    int(self.pairs[i, 0]),
                    grouped.get(self.predicates[i], self.predicates[i]),
                    int(self.pairs[i, 1]),
                    None if np.isnan(scores[i]) else float(scores[i]),
                    spans[i],
                )
                for i in order
            ]
        if vocabulary is None:
            raise SgrlError("predicate_scores have a column for each predicate; give vocabulary= to name them")
        table = self.scores[self.pairs].prod(axis=1)[:, None] * self.predicate_scores.astype(np.float64)
        flat = table.ravel()
        kept = np.arange(len(flat))
        if most is not None and most < len(flat):
            kept = np.flatnonzero(flat >= np.partition(flat, len(flat) - most)[len(flat) - most])
        names = [grouped.get(label, label) for label in vocabulary.predicates]
        rows, columns = np.divmod(kept[np.argsort(-flat[kept], kind="stable")][:most], table.shape[1] or 1)
        return [
            Triplet(int(self.pairs[i, 0]), names[j], int(self.pairs[i, 1]), float(table[i, j]), spans[i])
            for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
        ]

    def parsed(self, vocabulary: Vocabulary | None = None) -> ParsedGraph:
        """The relations that are listed one by one (`predicates`), in their order, as a codec reads them."""
        grouped = _grouped(vocabulary)
        names = [grouped.get(predicate, predicate) for predicate in self.predicates or ()]
        relations = [(s, p, o) for (s, o), p in zip(self.pairs.tolist(), names, strict=True)]
        return ParsedGraph(list(self.labels), list(map(tuple, self.boxes.tolist())), relations)

    def graph(self, most: int | None = None, vocabulary: Vocabulary | None = None) -> SceneGraph:
        """The `most` best relations of an image (see `best`) with all its objects, and the scores of both."""
        objects = map(Object, self.labels, map(tuple, self.boxes.tolist()), self.scores.tolist())
        relations = []
        for subject, predicate, target, score, spans in self.best(most, vocabulary):
            group, sign, name = predicate.partition(SEPARATOR)
            if min(subject, target) >= 0:
                span = spans[0] if spans else None
                relations.append(
                    Relation(subject, name if sign else predicate, target, group if sign else None, span, score)
                )
        return SceneGraph(objects, relations, self.width, self.height)

    def video(self, most: int | None = None, vocabulary: Vocabulary | None = None) -> VideoGraph:
        """The `most` best relations of a whole video (see `best`) with all its tubes."""
        if self.tubes is None:
            self.fail("tubes", "boxes of an image", "the tubes of a whole video")
        relations = [TimedRelation(s, p, o, spans, score) for s, p, o, score, spans in self.best(most, vocabulary)]
        return VideoGraph(map(TubeObject, self.labels, self.tubes), relations)

    def resized(self, width: int, height: int) -> ScoredGraph:
        """The same of the image or video scaled to `width` x `height`; masks become the boxes around them."""
        if (width, height) == (self.width, self.height):
            return self
        scale = np.array([width / self.width, height / self.height] * 2)
        if self.tubes is None:
            return replace(self, width=width, height=height, boxes=self.boxes * scale)
        tubes = [BoxTube(tube.boxes * scale) for tube in self._box_tubes()]
        return replace(self, width=width, height=height, tubes=tubes)

    def boxed(self) -> ScoredGraph:
        """A whole video with the boxes around its masks in their place."""
        return replace(self, tubes=self._box_tubes())

    def _box_tubes(self) -> list[BoxTube]:
        return [tube.boxes() if isinstance(tube, MaskTube) else tube for tube in self.tubes]

    def on_frames(self, numbers: Sequence[int]) -> ScoredGraph:
        """A whole video at these frames only, as boxes: T is how many there are. Objects are nowhere in those that it
        lacks, and relations go that hold in none."""
        position = {number: i for i, number in enumerate(self.numbers)}
        places = [position.get(number) for number in numbers]
        tubes = [BoxTube([None if i is None else tube.boxes[i] for i in places]) for tube in self._box_tubes()]
        spans = []
        for given in self.spans or ((),) * len(self.pairs):
            held = [j for j, i in enumerate(places) if i is not None and any(a <= i <= b for a, b in given)]
            spans.append(runs(held) if given else ())
        old = self.spans or spans
        rows = [i for i, (new, given) in enumerate(zip(spans, old, strict=True)) if new or not given]
        values = {name: getattr(self, name) for name in ("predicate_scores", "predicates", "relation_scores")}
        values = {name: [value[i] for i in rows] for name, value in values.items() if value is not None}
        values |= {"pairs": self.pairs[rows], "spans": [spans[i] for i in rows], "frames": numbers, "tubes": tubes}
        return replace(self, **values)

    def at(self, position: int, **names) -> ScoredGraph:
        """What a whole video says of one of its frames: the objects that are there, and the relations that hold.

        names: image_id and frame of the result.
        """
        tubes = self._box_tubes()
        there = [i for i, tube in enumerate(tubes) if position < tube.frames and tube.areas[position] > 0]
        place = {i: number for number, i in enumerate(there)}
        spans = self.spans or ((),) * len(self.pairs)
        rows = [
            i
            for i, (ends, given) in enumerate(zip(self.pairs.tolist(), spans, strict=True))
            if place.keys() >= set(ends) and (not given or any(first <= position <= last for first, last in given))
        ]
        taken = {"labels": there, "scores": there, "label_scores": there}
        taken |= dict.fromkeys(("predicate_scores", "predicates", "relation_scores"), rows)
        values: dict[str, Any] = {
            name: [value[i] for i in which]
            for name, which in taken.items()
            if (value := getattr(self, name)) is not None
        }
        values["boxes"] = [tubes[i].boxes[position] for i in there]
        values["pairs"] = [[place[end] for end in self.pairs[i].tolist()] for i in rows]
        values |= {"tubes": None, "spans": None, "frames": None}
        return replace(self, **values, **names)

    def _check_names(self) -> None:
        for name in ("dataset", "image_id", "video_id"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name != "dataset"):
                self.fail(name, repr(value), "a string")
        if self.image_id is None and (self.video_id is None or self.tubes is None):
            self.fail("image_id", "none", "that of an image or a frame; a whole video has video_id and tubes")
        if self.image_id is not None and self.tubes is not None:
            self.fail("tubes", "tubes beside an image_id", "boxes of the image, or a whole video without image_id")
        if self.frame is not None and not isinstance(self.frame, int | np.integer):
            self.fail("frame", repr(self.frame), "a whole number")
        for name in ("width", "height"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 0 < value < 1 << 31:
                self.fail(name, repr(value), "a whole number of pixels, at least 1")
            self._set(name, int(value))
        if self.fps is not None and not (isinstance(self.fps, int | float) and 0 < self.fps < np.inf):
            self.fail("fps", repr(self.fps), "a positive number")

    def _check_objects(self) -> None:
        n = len(self.labels)
        for i, label in enumerate(self.labels):
            if not isinstance(label, str):
                self.fail("labels", f"{label!r} at {i}", "a string")
        self._set("scores", np.ones(n) if self.scores is None else self._numbers("scores", self.scores, (n,), 1.0))
        if self.tubes is None:
            boxes = self._numbers("boxes", () if self.boxes is None else self.boxes, (n, 4))
            reversed_boxes = np.flatnonzero((boxes[:, :2] > boxes[:, 2:]).any(axis=1))
            if len(reversed_boxes) and not self.written:
                i = int(reversed_boxes[0])
                self.fail("boxes", f"{boxes[i].tolist()} at {i}", "x1, y1, x2, y2 with x1 <= x2 and y1 <= y2")
            self._set("boxes", boxes)
        else:
            self._check_tubes(n)
        if self.label_scores is not None:
            table = self._numbers("label_scores", self.label_scores, (n, None), 1.0, np.float32)
            self._set("label_scores", table)

    def _check_tubes(self, n: int) -> None:
        if self.boxes is not None:
            self.fail("boxes", "boxes beside tubes", "one of both")
        if len(self.tubes) != n:
            self.fail("tubes", f"{len(self.tubes)} tubes", f"{n}, one for each label")
        kinds = {type(tube) for tube in self.tubes}
        if len(kinds) > 1 or not kinds <= {MaskTube, BoxTube}:
            found = ", ".join(sorted(kind.__name__ for kind in kinds))
            self.fail("tubes", found, "MaskTube for all objects, or BoxTube for all")
        lengths = {tube.frames for tube in self.tubes} | ({len(self.frames)} if self.frames is not None else set())
        if len(lengths) > 1:
            self.fail("tubes", f"lengths {', '.join(map(str, sorted(lengths)))}", "one number of frames")
        for i, tube in enumerate(self.tubes):
            if isinstance(tube, MaskTube) and (tube.width, tube.height) != (self.width, self.height):
                self.fail("tubes", f"masks of {tube.width} x {tube.height} at {i}", f"{self.width} x {self.height}")
        for i, number in enumerate(self.frames or ()):
            if not isinstance(number, int | np.integer):
                self.fail("frames", f"{number!r} at {i}", "whole numbers")
        if self.frames is not None and len(set(self.frames)) < len(self.frames):
            self.fail("frames", "a number that stands twice", "the numbers of different frames")

    def _check_relations(self) -> None:
        pairs = np.asarray(self.pairs)
        if pairs.size and (pairs.dtype.kind not in "iu" or pairs.ndim != 2 or pairs.shape[1] != 2):
            self.fail("pairs", f"{pairs.dtype} of shape {pairs.shape}", "whole numbers of shape (R, 2)")
        pairs = pairs.astype(np.int64).reshape(-1, 2)
        n, r = len(self.labels), len(pairs)
        outside = np.flatnonzero(((pairs < (-1 if self.written else 0)) | (pairs >= n)).any(axis=1))
        if len(outside):
            i = int(outside[0])
            self.fail("pairs", f"{pairs[i].tolist()} at {i}", f"positions of two of the {n} objects")
        self._set("pairs", pairs)
        if self.predicate_scores is not None:
            if self.predicates is not None or self.relation_scores is not None:
                self.fail("predicates", "predicates beside predicate_scores", "one of both")
            table = self._numbers("predicate_scores", self.predicate_scores, (r, None), 1.0, np.float32)
            self._set("predicate_scores", table)
        elif self.predicates is None:
            if r:
                self.fail("predicate_scores", "none", f"scores, or predicates, of {r} pairs")
            self._set("predicates", ())
        if self.predicates is not None:
            if len(self.predicates) != r:
                self.fail("predicates", f"{len(self.predicates)} predicates", f"{r}, one for each pair")
            for i, predicate in enumerate(self.predicates):
                if not isinstance(predicate, str):
                    self.fail("predicates", f"{predicate!r} at {i}", "a string")
            if self.relation_scores is not None:
                known = [np.nan if value is None else value for value in self.relation_scores]
                limit = None if self.written else 1.0
                scores = self._numbers("relation_scores", known, (r,), limit, unknown=True)
                self._set("relation_scores", scores)
        if self.spans is not None:
            self._set("spans", tuple(self._span(i, given) for i, given in enumerate(self.spans)))
            if len(self.spans) != r:
                self.fail("spans", f"those of {len(self.spans)}", f"{r}, one for each pair")

    def _span(self, i: int, given: Sequence[Span]) -> tuple[Span, ...]:
        try:
            spans = tuple((float(first), float(last)) for first, last in given)
        except (TypeError, ValueError):
            self.fail("spans", f"{given!r} at {i}", "pairs of first and last frame")
        for first, last in spans:
            if not 0 <= first <= last < np.inf:
                self.fail("spans", f"{first:g} to {last:g} at {i}", "first and last frame, 0 <= first <= last")
        return spans

    def _numbers(self, name, given, shape, limit=None, dtype=np.float64, unknown=False) -> np.ndarray:
        """Finite numbers of a shape, whose last side may be free (None), in [0, limit] if there is one; with `unknown`
        NaN too."""
        try:
            values = np.asarray(given, dtype=dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            self.fail(name, printable(error, 100), f"numbers of shape {_shape(shape)}")
        if not values.size and shape[0] == 0:  # an empty list has no second side
            return np.zeros([side or 0 for side in shape], dtype)
        if values.ndim != len(shape) or any(b not in (None, a) for a, b in zip(values.shape, shape, strict=True)):
            self.fail(name, f"shape {_shape(values.shape)}", f"shape {_shape(shape)}")
        wrong = ~np.isfinite(values)
        if unknown:
            wrong &= ~np.isnan(values)
        if limit is not None:
            with np.errstate(invalid="ignore"):
                wrong |= (values < 0) | (values > limit + _ABOVE_ONE)
        if wrong.any():
            place = np.argwhere(wrong)[0].tolist()
            expected = "finite numbers" if limit is None else "numbers from 0 to 1: apply softmax or sigmoid"
            at = ", ".join(map(str, place))
            self.fail(name, f"{values[tuple(place)]:g} at {at}", expected)
        return values

    def fail(self, field: str, found: str, expected: str) -> NoReturn:
        """Raise the error of a field."""
        raise fault(self.image_id, self.video_id, field, found, expected)

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)


def _shape(sides: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if side is None else str(side) for side in sides) + ")"


def _grouped(vocabulary: Vocabulary | None) -> dict[str, str]:
    """ "<group>__<label>" of each predicate that stands in a group."""
    groups = (vocabulary.groups if vocabulary else None) or {}
    return {label: f"{group}{SEPARATOR}{label}" for group, labels in groups.items() for label in labels}
