"""The one data model: objects with boxes, relations between them, and the image that they live in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sgrl.boxes import scale
from sgrl.errors import SgrlError

Box = tuple[float, float, float, float]


class GraphError(SgrlError):
    """A graph that cannot exist: a number that is not finite, an index that points nowhere, an empty image."""


@dataclass(frozen=True, slots=True)
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

    def __post_init__(self):
        if not isinstance(self.label, str):
            raise GraphError(f"an object's label must be a string, found {self.label!r}")
        try:
            box = tuple(map(float, self.box))
        except (TypeError, ValueError, OverflowError):
            box = ()
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise GraphError(
                f"object {self.label!r}: box must be four finite numbers x1, y1, x2, y2, found {self.box!r}"
            )
        object.__setattr__(self, "box", box)


@dataclass(frozen=True, slots=True)
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

    def __post_init__(self):
        object.__setattr__(self, "objects", tuple(self.objects))
        object.__setattr__(self, "relations", tuple(self.relations))
        if not (self.width > 0 and self.height > 0):
            raise GraphError(f"the image must have an area, found {self.width!r} x {self.height!r} pixels")
        n = len(self.objects)
        for i, relation in enumerate(self.relations):
            if not isinstance(relation.predicate, str):
                raise GraphError(f"relation {i}: the predicate must be a string, found {relation.predicate!r}")
            for end in ("subject", "object"):
                index = getattr(relation, end)
                if not (isinstance(index, int | np.integer) and 0 <= index < n):
                    raise GraphError(
                        f"relation {i} ({relation.predicate!r}): {end} must be the position of one of the "
                        f"{n} objects, found {index!r}"
                    )

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) float64, xyxy in pixels; (0, 4) without objects."""
        return np.array([o.box for o in self.objects], dtype=np.float64).reshape(-1, 4)

    def resized(self, width: int, height: int) -> SceneGraph:
        """The same graph for the image scaled to `width` x `height`."""
        boxes = scale(self.boxes, (self.width, self.height), (width, height)).tolist()
        objects = [replace(o, box=box) for o, box in zip(self.objects, boxes, strict=True)]
        return SceneGraph(tuple(objects), self.relations, width, height)

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
        objects: list[Object] = []
        first: dict[tuple[str, Box], int] = {}
        new_index: list[int | None] = []
        for o in self.objects:
            x1, y1, x2, y2 = o.box
            box = (
                min(max(x1, 0.0), float(self.width)),
                min(max(y1, 0.0), float(self.height)),
                min(max(x2, 0.0), float(self.width)),
                min(max(y2, 0.0), float(self.height)),
            )
            report["out_of_image_boxes"] += box != o.box
            if not (box[0] < box[2] and box[1] < box[3]):
                report["degenerate_boxes"] += 1
                new_index.append(None)
                continue
            index = first.setdefault((o.label, box), len(objects))
            if index == len(objects):
                objects.append(o if box == o.box else replace(o, box=box))
            else:
                report["duplicate_objects"] += 1
            new_index.append(index)
        relations: dict[tuple, Relation] = {}
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
