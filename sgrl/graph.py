"""The one data model: objects with boxes, relations between them, and the image that they live in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sgrl import plain
from sgrl.errors import GraphError as GraphError

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, init=False)
class Object:
    """One thing in the image.

    Args:
        label: class name, in the spelling of the data set or of the text it came from.
        box: x1, y1, x2, y2 in absolute pixels of the graph's image, half-open; any finite numbers (the order of the
            corners and the image's border are the business of `SceneGraph.cleaned`).
        score: confidence of a detector, None for annotations.

    Raises:
        GraphError: the label is not a string, or the box is not four finite numbers.
    """

    label: str
    box: Box
    score: float | None = None

    def __init__(self, label: str, box: Box, score: float | None = None):
        if not isinstance(label, str):
            raise GraphError(f"an object's label must be a string, found {label!r}")
        try:
            x1, y1, x2, y2 = numbers = tuple(map(float, box))
            finite = math.isfinite(x1 + y1 + x2 + y2) or all(map(math.isfinite, numbers))  # the sum may be too large
        except (TypeError, ValueError, OverflowError):
            finite = False
        if not finite:
            raise GraphError(f"object {label!r}: box must be four finite numbers x1, y1, x2, y2, found {box!r}")
        _set_label(self, label)
        _set_box(self, numbers)
        _set_score(self, score)

    def moved(self, box: Box) -> Object:
        """The same object elsewhere. Nothing is checked: for boxes that were computed from finite ones."""
        moved = _new(Object)
        _set_label(moved, self.label)
        _set_box(moved, box)
        _set_score(moved, self.score)
        return moved


# Around what is frozen. Graphs are made by the million: what dataclasses generate for frozen ones takes twice as long.
_new, _set = object.__new__, object.__setattr__
_set_label, _set_box, _set_score = (getattr(Object, name).__set__ for name in ("label", "box", "score"))


@dataclass(frozen=True, slots=True, init=False)
class Relation:
    """A directed edge.

    Args:
        subject, object: positions in `SceneGraph.objects`, from 0.
        predicate: the verb or preposition.
        group: "attention", "spatial" or "contacting" in Action Genome, else None.
        span: (first, last) in frames or seconds for video, else None.
        score: confidence, None for annotations.
    """

    subject: int
    predicate: str
    object: int
    group: str | None = None
    span: tuple[float, float] | None = None
    score: float | None = None

    def __init__(
        self,
        subject: int,
        predicate: str,
        object: int,
        group: str | None = None,
        span: tuple[float, float] | None = None,
        score: float | None = None,
    ):
        _set_subject(self, subject)
        _set_predicate(self, predicate)
        _set_object(self, object)
        _set_group(self, group)
        _set_span(self, span)
        _set_relation_score(self, score)


_set_subject, _set_predicate, _set_object, _set_group, _set_span, _set_relation_score = (
    getattr(Relation, name).__set__ for name in ("subject", "predicate", "object", "group", "span", "score")
)


@dataclass(frozen=True, slots=True)
class SceneGraph:
    """Objects and relations of one image of `width` x `height` pixels.

    Lists are turned into tuples. What is checked is what must always hold; `cleaned` repairs the rest.

    Raises:
        GraphError: a relation that points outside the objects, a predicate that is no string, an image without area.
    """

    objects: tuple[Object, ...]
    relations: tuple[Relation, ...]
    width: int
    height: int

    if TYPE_CHECKING:  # it takes more than it keeps

        def __init__(
            self, objects: Iterable[Object], relations: Iterable[Relation], width: int, height: int
        ) -> None: ...

    def __post_init__(self) -> None:
        _set(self, "objects", tuple(self.objects))
        _set(self, "relations", tuple(self.relations))
        if not (self.width > 0 and self.height > 0):
            raise GraphError(f"the image must have an area, found {self.width!r} x {self.height!r} pixels")
        n = len(self.objects)
        for i, r in enumerate(self.relations):
            subject, target = r.subject, r.object
            if (
                type(subject) is type(target) is int
                and 0 <= subject < n
                and 0 <= target < n
                and type(r.predicate) is str
            ):
                continue
            if not isinstance(r.predicate, str):
                raise GraphError(f"relation {i}: the predicate must be a string, found {r.predicate!r}")
            for end, index in (("subject", subject), ("object", target)):
                if not (isinstance(index, int | np.integer) and 0 <= index < n):
                    raise GraphError(
                        f"relation {i} ({r.predicate!r}): {end} must be the position of one of the "
                        f"{n} objects, found {index!r}"
                    )

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) float64, xyxy in pixels; (0, 4) without objects."""
        return np.array([o.box for o in self.objects], dtype=np.float64).reshape(-1, 4)

    def resized(self, width: int, height: int) -> SceneGraph:
        """The same graph for the image scaled to `width` x `height`."""
        w, h = self.width, self.height
        objects = []
        for o in self.objects:
            x1, y1, x2, y2 = o.box  # as sgrl.boxes.scale; an array is slower to make than to compute
            objects.append(o.moved((x1 * width / w, y1 * height / h, x2 * width / w, y2 * height / h)))
        if not (width > 0 and height > 0):
            return SceneGraph(tuple(objects), self.relations, width, height)  # says what is wrong
        resized = _new(SceneGraph)  # the relations have been checked
        _set(resized, "objects", tuple(objects))
        _set(resized, "relations", self.relations)
        _set(resized, "width", width)
        _set(resized, "height", height)
        return resized

    def _is_clean(self) -> bool:
        """Whether `cleaned` would change nothing."""
        width, height = self.width, self.height
        things: set[tuple[str, Box]] = set()
        for o in self.objects:
            x1, y1, x2, y2 = box = o.box
            if not (0.0 <= x1 < x2 <= width and 0.0 <= y1 < y2 <= height):
                return False
            things.add((o.label, box))
        if len(things) < len(self.objects):
            return False
        seen = set()
        for r in self.relations:
            if r.subject == r.object:
                return False
            seen.add((r.subject, r.predicate, r.object, r.group, r.span))
        return len(seen) == len(self.relations)

    def cleaned(self) -> tuple[SceneGraph, dict[str, int]]:
        """The graph that annotation should have been, and how many of each fault were found.

        Boxes are clipped to the image (`out_of_image_boxes`); objects whose box then has no area are removed
        (`degenerate_boxes`) together with their relations (`orphaned_relations`); objects with the label and box of an
        earlier one are merged into it (`duplicate_objects`); relations from an object to itself (`self_relations`) and
        repeated relations (`duplicate_relations`) are removed. Order is kept. Every key is always present.
        """
        report = dict.fromkeys(
            (
                "out_of_image_boxes",
                "degenerate_boxes",
                "duplicate_objects",
                "orphaned_relations",
                "self_relations",
                "duplicate_relations",
            ),
            0,
        )
        if self._is_clean():  # most are
            return self, report
        width, height = float(self.width), float(self.height)
        objects: list[Object] = []
        first: dict[tuple[str, Box], int] = {}
        new_index: list[int | None] = []
        for o in self.objects:
            x1, y1, x2, y2 = box = o.box
            if not (0.0 <= x1 < x2 <= width and 0.0 <= y1 < y2 <= height):
                box = (
                    min(max(x1, 0.0), width),
                    min(max(y1, 0.0), height),
                    min(max(x2, 0.0), width),
                    min(max(y2, 0.0), height),
                )
                report["out_of_image_boxes"] += box != o.box
                if not (box[0] < box[2] and box[1] < box[3]):
                    report["degenerate_boxes"] += 1
                    new_index.append(None)
                    continue
            index = first.setdefault((o.label, box), len(objects))
            if index == len(objects):
                objects.append(o if box == o.box else o.moved(box))
            else:
                report["duplicate_objects"] += 1
            new_index.append(index)
        relations: dict[tuple[Any, ...], Relation] = {}
        for r in self.relations:
            subject, target = new_index[r.subject], new_index[r.object]
            key = (subject, r.predicate, target, r.group, r.span)
            if subject is None or target is None:
                report["orphaned_relations"] += 1
            elif subject == target:
                report["self_relations"] += 1
            elif key in relations:
                report["duplicate_relations"] += 1
            else:
                same = subject == r.subject and target == r.object
                relations[key] = r if same else replace(r, subject=subject, object=target)
        return SceneGraph(tuple(objects), tuple(relations.values()), self.width, self.height), report

    def to_dict(self, tracks: Sequence[int | str | None] | None = None) -> dict[str, Any]:
        """As a dictionary of plain values (see `sgrl.plain`), which `from_dict` turns back.

        A score that is no finite number is left out.

        Args:
            tracks: an identity through a video for each object, None for one without.
        """
        sides = {"width": plain.number(self.width), "height": plain.number(self.height)}
        return sides | plain.write(self.objects, self.relations, tracks)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SceneGraph:
        """The graph of such a dictionary. What it has besides is passed over; `tracks_of` gives its tracks.

        Raises:
            GraphError: what is missing, of a wrong kind or points nowhere, with the number of the object or relation.
        """
        objects, relations, width, height = plain.image(data)
        return cls(tuple(Object(**o) for o in objects), tuple(Relation(**r) for r in relations), width, height)

    def to_json(self, tracks: Sequence[int | str | None] | None = None) -> str:
        """`to_dict` as JSON, one line of ASCII."""
        return plain.text(self.to_dict(tracks))

    @classmethod
    def from_json(cls, text: str | bytes) -> SceneGraph:
        """The graph that `to_json` wrote. Raises GraphError, as `from_dict` does."""
        return cls.from_dict(plain.parsed(text))

    def draw(self, image: Any = None, tracks: Sequence[int | str | None] | None = None) -> Image.Image:
        """The image with the boxes, an arrow for each relation, and the relations in words below it.

        Args:
            image: a PIL image, an array (height, width, 3) of RGB, or what `sgrl.images.open_image` takes: a path,
                bytes. Of any size: boxes are scaled to it. Without one the paper is white.
            tracks: the number that stands beside each object; its position from 1 unless given.

        Raises:
            SgrlError: the image does not open.
        """
        from sgrl.drawing import Drawing, picture_of

        return Drawing.of(self, tracks).draw(picture_of(image, self.width, self.height))

    def _repr_html_(self) -> str:
        """What notebooks show: a picture (SVG) of the boxes and arrows beside the list of the relations."""
        from sgrl.drawing import Drawing

        return Drawing.of(self).html()


def tracks_of(data: Mapping[str, Any]) -> list[int | str | None]:
    """The identity of each object of a dictionary of `to_dict`, None for one without. Raises GraphError."""
    plain.image(data)
    return plain.check_tracks(data["objects"])
