"""Videos as graphs: objects as tubes of masks or boxes through the frames, relations that hold in spans of frames.

A `MaskTube` keeps runs of pixels, never whole frames: masks are taken one frame at a time, and two tubes are compared
run by run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sgrl import plain
from sgrl.boxes import area
from sgrl.errors import SgrlError
from sgrl.run_lengths import compressed, uncompressed

Span = tuple[float, float]


class MaskTube:
    """The mask of one object in every frame of a video.

    Pixels are numbered through the whole video, in each frame down the columns as COCO does. `starts` and `ends` are
    the half-open runs of the mask, in order, none across two frames.

    Attributes:
        frames: number of frames T. height, width: of each in pixels.
        areas: (T,) int64, pixels of the mask in each frame.
    """

    __slots__ = ("frames", "height", "width", "areas", "starts", "ends", "_knots", "_covered")

    def __init__(self, starts: np.ndarray, ends: np.ndarray, frames: int, height: int, width: int):
        self.starts, self.ends = starts, ends
        self.frames, self.height, self.width = frames, height, width
        self.areas = self._by_frame(ends - starts)
        self._knots: np.ndarray | None = None
        self._covered: np.ndarray | None = None

    @classmethod
    def from_masks(cls, masks: Iterable, height: int | None = None, width: int | None = None) -> MaskTube:
        """Of the frames in order: (height, width) arrays that are true in the mask, or None where there is none.

        Any iterable; one frame is held at a time. The size is that of the masks, or is given if all may be None.

        Raises:
            SgrlError: masks of different sizes, or no size.
        """
        pieces, frames = [], 0
        for mask in masks:
            frames += 1
            if mask is None:
                continue
            mask = np.asarray(mask, dtype=bool)
            if height is None or width is None:
                height, width = mask.shape
            _check_size(mask.shape, (height, width), frames - 1)
            edges = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False, append=False))
            pieces.append(edges + (frames - 1) * height * width)
        if height is None or width is None:
            raise SgrlError(f"no mask in {frames} frames; give height and width")
        edges = np.concatenate([np.zeros(0, dtype=np.int64), *pieces])
        return cls(edges[::2], edges[1::2], frames, height, width)

    @classmethod
    def from_rle(cls, masks: Iterable[dict | None], height: int | None = None, width: int | None = None) -> MaskTube:
        """Of COCO's run lengths, {"size": [height, width], "counts": list or compressed string}, None without a mask.

        Nothing is unpacked. Raises SgrlError for counts that do not fill the frame, and as `from_masks`.
        """
        pieces, frames = [], 0
        for mask in masks:
            frames += 1
            if mask is None:
                continue
            try:
                size, counts = tuple(mask["size"]), mask["counts"]
                counts = np.asarray(
                    uncompressed(counts) if isinstance(counts, str | bytes) else counts, dtype=np.int64
                )
            except (TypeError, KeyError, ValueError, IndexError, OverflowError) as error:
                raise SgrlError(f"frame {frames - 1}: not a run-length encoded mask: {error!r}") from None
            if height is None or width is None:
                height, width = size
            _check_size(size, (height, width), frames - 1)
            edges = np.cumsum(counts)
            if (counts < 0).any() or not len(edges) or edges[-1] != height * width:
                filled = int(edges[-1]) if len(edges) else 0
                raise SgrlError(f"frame {frames - 1}: counts fill {filled} pixels of {height} x {width}")
            # runs of 0 and 1 alternate, beginning with 0
            runs = np.stack([edges[:-1:2], edges[1::2]]) + (frames - 1) * height * width
            pieces.append(runs[:, runs[0] < runs[1]])
        if height is None or width is None:
            raise SgrlError(f"no mask in {frames} frames; give height and width")
        starts, ends = np.concatenate([np.zeros((2, 0), dtype=np.int64), *pieces], axis=1)
        return cls(starts, ends, frames, height, width)

    def to_rle(self) -> list[str | None]:
        """The compressed counts of each frame, as `from_rle` takes them; None where there is no mask."""
        size = self.height * self.width
        frame = self.starts // size
        found: list[str | None] = [None] * self.frames
        for number in np.unique(frame).tolist():
            runs = frame == number
            edges = np.stack([self.starts[runs], self.ends[runs]], axis=1).ravel() - number * size
            counts = np.diff(edges, prepend=0, append=size).tolist()
            found[number] = compressed(counts if counts[-1] else counts[:-1])
        return found

    def to_dict(self) -> dict:
        """{"masks": the runs of each frame as `from_rle` takes them, None where absent}."""
        size = [self.height, self.width]
        return {"masks": [counts and {"size": size, "counts": counts} for counts in self.to_rle()]}

    def boxes(self) -> BoxTube:
        """The boxes around the masks."""
        size = self.height * self.width
        frame, first, last = self.starts // size, self.starts % size, (self.ends - 1) % size
        # a run that goes on in the next column reaches from the top to the bottom
        low, high = first // self.height, last // self.height
        over = high > low
        top, bottom = np.where(over, 0, first % self.height), np.where(over, self.height, last % self.height + 1)
        found = np.full((self.frames, 4), np.nan)
        for column, values, join in (
            (0, low, np.fmin),
            (1, top, np.fmin),
            (2, high + 1, np.fmax),
            (3, bottom, np.fmax),
        ):
            join.at(found[:, column], frame, values.astype(np.float64))
        return BoxTube(found)

    def intersections(self, other: MaskTube | BoxTube) -> np.ndarray:
        """(T,) int64: pixels that both masks have, in each frame of this tube."""
        if not isinstance(other, MaskTube) or (self.height, self.width) != (other.height, other.width):
            raise SgrlError(f"cannot compare {self!r} with {other!r}; both must be masks of one size")
        if not len(self.starts) or not len(other.starts):
            return np.zeros(self.frames, dtype=np.int64)
        if other._knots is None or other._covered is None:
            lengths = other.ends - other.starts
            after = np.cumsum(lengths)
            other._knots = np.stack([other.starts, other.ends], axis=1).ravel()
            other._covered = np.stack([after - lengths, after], axis=1).ravel()
        knots, covered = other._knots, other._covered
        before_ends, before_starts = (np.interp(x, knots, covered) for x in (self.ends, self.starts))
        return self._by_frame(before_ends - before_starts)

    def _by_frame(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels of the runs, summed by frame. Floats are exact: a video has far fewer than 2 ** 53 pixels."""
        frame = self.starts // (self.height * self.width)
        return np.bincount(frame, weights=pixels, minlength=self.frames).astype(np.int64)

    def __repr__(self):
        return f"MaskTube of {self.frames} frames of {self.height} x {self.width}"


class BoxTube:
    """The box of one object in every frame of a video.

    Args:
        boxes: T boxes x1, y1, x2, y2 in pixels, half-open, None where the object is absent. A box that is not finite
            or has no area is absent too.

    Attributes:
        frames: T. areas: (T,) float64, 0 where absent.
    """

    __slots__ = ("frames", "boxes", "areas")

    def __init__(self, boxes: Iterable[Sequence[float] | np.ndarray | None]):
        rows = [(math.nan,) * 4 if box is None else box for box in boxes]
        self.boxes = np.asarray(rows, dtype=np.float64).reshape(-1, 4)
        self.boxes = np.where(np.isfinite(self.boxes).all(axis=1, keepdims=True), self.boxes, 0.0)
        self.frames = len(self.boxes)
        with np.errstate(all="ignore"):
            self.areas = area(self.boxes)

    def intersections(self, other: MaskTube | BoxTube) -> np.ndarray:
        """(T,) float64: the area that both boxes have, in each frame of this tube."""
        if not isinstance(other, BoxTube):
            raise SgrlError(f"cannot compare boxes with {other!r}; make boxes of its masks, or masks of the boxes")
        n = min(self.frames, other.frames)
        a, b = self.boxes[:n], other.boxes[:n]
        shared = np.zeros(self.frames)
        with np.errstate(all="ignore"):
            shared[:n] = area(np.hstack([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])]))
        return shared

    def to_dict(self) -> dict:
        """{"boxes": x1, y1, x2, y2 of each frame, None where absent}."""
        there = (self.areas > 0).tolist()
        return {"boxes": [box if here else None for box, here in zip(self.boxes.tolist(), there, strict=True)]}

    def __repr__(self):
        return f"BoxTube of {self.frames} frames"


def tubes_of_maps(maps: Iterable, background: int | None = 0) -> dict[int, MaskTube]:
    """The tubes of all values of panoptic maps.

    Args:
        maps: (height, width) whole numbers for each frame in order, a pixel's value being its object's id; None for a
            frame without a map, where no object is. One is held at a time.
        background: the value that is no object.

    Raises:
        SgrlError: no map, maps of different sizes.
    """
    values, starts, ends, frames, size = [], [], [], 0, None
    for number, frame in enumerate(maps):
        frames += 1
        if frame is None:
            continue
        frame = np.asarray(frame)
        size = size or frame.shape
        _check_size(frame.shape, size, number)
        flat = frame.ravel(order="F")
        edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
        kept = slice(None) if background is None else flat[edges[:-1]] != background
        values.append(flat[edges[:-1]][kept])
        starts.append(edges[:-1][kept] + number * flat.size)
        ends.append(edges[1:][kept] + number * flat.size)
    if size is None:
        raise SgrlError("found no panoptic map; a video has at least one frame")
    values, starts, ends = (np.concatenate(pieces) for pieces in (values, starts, ends))
    order = np.argsort(values, kind="stable")
    ids, first = np.unique(values[order], return_index=True)
    parts = np.split(order, first[1:])
    return {int(i): MaskTube(starts[p], ends[p], frames, *size) for i, p in zip(ids, parts, strict=False)}


@dataclass(frozen=True, slots=True)
class TubeObject:
    """One thing in a video: its class and where it is."""

    label: str
    tube: MaskTube | BoxTube


@dataclass(frozen=True, slots=True)
class TimedRelation:
    """A relation between two objects of a video.

    Args:
        subject, object: positions in `VideoGraph.objects`, from 0.
        predicate: the verb or preposition.
        spans: when it holds: pairs of first and last frame, from 0, both included. () is always.
        score: confidence, None for annotations.
    """

    subject: int
    predicate: str
    object: int
    spans: tuple[Span, ...] = ()
    score: float | None = None

    def holds(self, frames: int) -> np.ndarray:
        """(frames,) bool: in which frames. Spans that are reversed, outside or no numbers hold in none."""
        if not self.spans:
            return np.ones(frames, dtype=bool)
        active = np.zeros(frames, dtype=bool)
        for first, last in self.spans:
            if first <= last:
                start, stop = math.ceil(min(max(first, 0), frames)), math.floor(min(max(last, -1), frames - 1)) + 1
                active[start:stop] = True
        return active


@dataclass(frozen=True, slots=True)
class VideoGraph:
    """Objects and relations of a video. Lists are turned into tuples.

    Raises:
        SgrlError: a relation that points outside the objects, tubes of masks beside tubes of boxes.
    """

    objects: tuple[TubeObject, ...]
    relations: tuple[TimedRelation, ...]

    if TYPE_CHECKING:  # it takes more than it keeps

        def __init__(self, objects: Iterable[TubeObject], relations: Iterable[TimedRelation]) -> None: ...

    def __post_init__(self):
        object.__setattr__(self, "objects", tuple(self.objects))
        object.__setattr__(self, "relations", tuple(self.relations))
        n = len(self.objects)
        if len({type(o.tube) for o in self.objects}) > 1:
            raise SgrlError("a video must have tubes of one kind, found both masks and boxes")
        for i, r in enumerate(self.relations):
            for end, index in (("subject", r.subject), ("object", r.object)):
                if not (isinstance(index, int | np.integer) and 0 <= index < n):
                    raise SgrlError(
                        f"relation {i} ({r.predicate!r}): {end} must be the position of one of the {n} objects, "
                        f"found {index!r}"
                    )

    @property
    def frames(self) -> int:
        """Of the longest tube."""
        return max((o.tube.frames for o in self.objects), default=0)

    def to_dict(self) -> dict:
        """As a dictionary (see `sgrl.plain`), which `from_dict` turns back. A box without area is None."""
        objects = [{"id": i, "label": o.label, **o.tube.to_dict()} for i, o in enumerate(self.objects, 1)]
        tubes = [o.tube for o in self.objects if isinstance(o.tube, MaskTube)]
        sides = {"width": tubes[0].width, "height": tubes[0].height} if tubes else {}
        relations = [
            {"subject": int(r.subject) + 1, "predicate": r.predicate, "object": int(r.object) + 1}
            | ({"spans": [list(map(plain.number, span)) for span in r.spans]} if r.spans else {})
            | plain.known(r.score)
            for r in self.relations
        ]
        return sides | {"frames": self.frames, "objects": objects, "relations": relations}

    @classmethod
    def from_dict(cls, data: Mapping) -> VideoGraph:
        """The graph of such a dictionary.

        Raises:
            SgrlError: what is missing, of a wrong kind or points nowhere, with the number of the object or relation.
        """
        objects, relations, frames, height, width = plain.video(data)
        tubes = [
            BoxTube(found) if kind == "boxes" else MaskTube.from_rle(found, height, width)
            for _, kind, found in objects
        ]
        for i, tube in enumerate(tubes, 1):
            if tube.frames > frames:
                raise SgrlError(f"object {i}: {tube.frames} frames in a video of {frames}; one entry for each frame")
        things = [TubeObject(label, tube) for (label, _, _), tube in zip(objects, tubes, strict=True)]
        return cls(things, [TimedRelation(**r) for r in relations])

    def to_json(self) -> str:
        """`to_dict` as JSON, one line of ASCII."""
        return plain.text(self.to_dict())

    @classmethod
    def from_json(cls, text: str | bytes) -> VideoGraph:
        """The graph that `to_json` wrote. Raises SgrlError, as `from_dict` does."""
        return cls.from_dict(plain.parsed(text))


def runs(frames: list[int]) -> tuple[Span, ...]:
    """Rising numbers as pairs of first and last of what is without a gap."""
    breaks = [i for i in range(1, len(frames)) if frames[i] != frames[i - 1] + 1]
    return tuple((frames[a], frames[b - 1]) for a, b in zip([0, *breaks], [*breaks, len(frames)], strict=True))


def _check_size(found: tuple, expected: tuple, frame: int) -> None:
    if tuple(found) != tuple(expected):
        raise SgrlError(
            f"frame {frame}: a mask of {' x '.join(map(str, found))}, but of {' x '.join(map(str, expected))} before; "
            "masks of a video must have one height and width"
        )
