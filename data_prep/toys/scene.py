"""The toy world's scenes: coloured shapes in an image, with boxes, masks and relations that follow from geometry.

A scene is a 96 x 96 image of two to four shapes. Every coordinate is a multiple of four pixels. Objects are listed
from left to right. An object is related to its nearest neighbour only (distance of the centres): `inside` (box in
box), `overlapping` (boxes meet), and else `left-of` or `above`, whichever axis is longer, if the centres are less than
50 px apart. Shapes stay visible: the box of what can be seen of a shape is the box of the shape, and at least half of
its pixels show. Colour says nothing about the class. A scene is a function of (seed, split, index) and nothing else.
"""

from __future__ import annotations

import io
import math
from functools import cache
from typing import NamedTuple

import numpy as np

from sgrl.errors import SgrlError

SIZE = 96
GRID = 4
OBJECTS = ("circle", "square", "triangle", "cross")
PREDICATES = ("inside", "overlapping", "left-of", "above")
BLOB = "blob"  # what is seen of a shape, grey, in a frame of a video that is out of focus
NEAR = 50.0  # px between centres; further apart, `left-of` and `above` are not said
SPLITS = ("train", "test")

_SIDES = tuple(range(20, 41, GRID))
_NESTED_SIDES = tuple(range(12, 21, GRID))
COLOURS = np.array(
    [
        (200, 40, 40), (40, 150, 60), (40, 80, 200), (230, 150, 20),
        (140, 50, 170), (20, 150, 170), (120, 80, 40), (220, 80, 150),
    ],
    dtype=np.int16,
)  # fmt: skip


class Scene(NamedTuple):
    """One scene. Objects are listed left to right, relations index them."""

    image: np.ndarray  # (96, 96, 3) uint8, RGB
    boxes: list[tuple[int, int, int, int]]  # xyxy, half-open pixels, multiples of 4 in 0..96
    labels: list[str]  # one of OBJECTS each
    relations: list[tuple[int, str, int]]  # (subject, one of PREDICATES, object), 0-based
    segments: np.ndarray  # (96, 96) int32: R + 256 G + 65536 B of the shape seen in this pixel, 0 is background
    segment_ids: list[int]  # the values of `segments`, parallel to the boxes


@cache
def shape_mask(label: str, side: int) -> np.ndarray:
    """The (side, side) bool mask of a shape; it touches all four sides of its box."""
    y, x = np.mgrid[0:side, 0:side] + 0.5 - side / 2
    if label == "circle":
        return x * x + y * y <= side * side / 4
    if label == "triangle":
        return np.abs(x) <= np.maximum((y + side / 2) / 2, 1.0)
    if label == "cross":
        return np.minimum(np.abs(x), np.abs(y)) <= side / 6
    if label == BLOB:
        return x**4 + y**4 <= (side / 2) ** 4
    if label == "person-right":  # of toy videos: a pentagon with its point ahead
        return np.abs(y) <= np.minimum(side / 2, side / 2 - x)
    if label == "person-left":
        return shape_mask("person-right", side)[:, ::-1]
    return np.ones((side, side), bool)


def place(rng, boxes, nested):
    """A place for the next shape: (box, is nested) in or near an earlier shape, or anywhere."""
    wish = rng.random()
    if boxes and wish < 0.16:
        hosts = [box for box, inner in zip(boxes, nested, strict=True) if not inner and box[2] - box[0] >= 24]
        if not hosts:
            return None, True
        x1, y1, x2, y2 = hosts[int(rng.integers(len(hosts)))]
        side = _NESTED_SIDES[int(rng.integers(len(_NESTED_SIDES)))]
        if side > (x2 - x1) // 2:
            return None, True
        left = x1 + GRID * int(rng.integers(0, (x2 - x1 - side) // GRID + 1))
        top = y1 + GRID * int(rng.integers(0, (y2 - y1 - side) // GRID + 1))
        return (left, top, left + side, top + side), True
    side = _SIDES[int(rng.integers(len(_SIDES)))]
    steps = (SIZE - side) // GRID + 1
    if boxes and wish < 0.44:  # a step that makes the boxes meet
        x1, y1, x2, y2 = boxes[int(rng.integers(len(boxes)))]
        left = x1 - side + GRID * int(rng.integers(1, (side + x2 - x1) // GRID))
        top = y1 - side + GRID * int(rng.integers(1, (side + y2 - y1) // GRID))
        if not (0 <= left <= SIZE - side and 0 <= top <= SIZE - side):
            return None, False
    else:
        left, top = GRID * int(rng.integers(steps)), GRID * int(rng.integers(steps))
    return (left, top, left + side, top + side), False


def paint(boxes, labels):
    """Paint the shapes, large ones first: (96, 96) int8 with the index of the shape on top, -1 is background.

    The order of the list does not matter.
    """
    layer = np.full((SIZE, SIZE), -1, np.int8)
    for index in sorted(range(len(boxes)), key=lambda i: (boxes[i][0] - boxes[i][2], boxes[i])):
        x1, y1, x2, y2 = boxes[index]
        layer[y1:y2, x1:x2][shape_mask(labels[index], x2 - x1)] = index
    return layer


def all_visible(layer, boxes, labels) -> bool:
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        seen = layer[y1:y2, x1:x2] == index
        if 2 * np.count_nonzero(seen) < np.count_nonzero(shape_mask(labels[index], x2 - x1)):
            return False
        if not (seen[0].any() and seen[-1].any() and seen[:, 0].any() and seen[:, -1].any()):
            return False
    return True


def relations_of(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, str, int]]:
    """The relations that follow from the boxes, each pair at most once, sorted by (subject, object)."""
    centres = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes]
    found = {}
    for i, (cx, cy) in enumerate(centres):
        distance, j = min((math.hypot(cx - x, cy - y), j) for j, (x, y) in enumerate(centres) if j != i)
        a, b = min(i, j), max(i, j)
        relation = _relation(boxes[a], boxes[b], centres[a], centres[b], distance)
        if relation is not None:
            predicate, swapped = relation
            found[a, b] = (b, predicate, a) if swapped else (a, predicate, b)
    return sorted(found.values(), key=lambda relation: (relation[0], relation[2]))


def _relation(a, b, centre_a, centre_b, distance):
    """(predicate, whether b is the subject) of two boxes, or None."""
    if b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]:
        return "inside", False
    if a[0] <= b[0] and a[1] <= b[1] and b[2] <= a[2] and b[3] <= a[3]:
        return "inside", True
    if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]:
        return "overlapping", False
    if distance >= NEAR:
        return None
    dx, dy = centre_b[0] - centre_a[0], centre_b[1] - centre_a[1]
    if abs(dx) >= abs(dy):
        return "left-of", dx < 0
    return "above", dy < 0


def scene(seed: int, index: int, split: str = "train") -> Scene:
    """Draw scene `index` of a split. The same arguments give the same scene, whatever was drawn before.

    Raises SgrlError for a split that is neither "train" nor "test".
    """
    if split not in SPLITS:
        raise SgrlError(f"split is {split!r}, expected 'train' or 'test'")
    rng = np.random.Generator(np.random.SFC64([seed, SPLITS.index(split), index]))
    count = int(rng.integers(2, 5))
    boxes: list[tuple[int, int, int, int]] = []
    nested: list[bool] = []
    labels: list[str] = []
    while len(boxes) < count:
        box, is_nested = place(rng, boxes, nested)
        if box is None or box in boxes:
            continue
        label = OBJECTS[int(rng.integers(len(OBJECTS)))]
        trial_boxes, trial_labels = [*boxes, box], [*labels, label]
        layer = paint(trial_boxes, trial_labels)
        if all_visible(layer, trial_boxes, trial_labels):
            boxes, labels = trial_boxes, trial_labels
            nested.append(is_nested)
    order = sorted(range(count), key=lambda i: boxes[i])  # left edge, then top edge
    boxes, labels = [boxes[i] for i in order], [labels[i] for i in order]
    layer = paint(boxes, labels)

    palette = COLOURS[rng.permutation(len(COLOURS))[:count]]
    drawn = palette + rng.integers(-15, 16, size=(count, 3), dtype=np.int16)
    colours = np.vstack([drawn, np.full((1, 3), rng.integers(225, 251), np.int16)])  # last row: layer == -1
    noise = rng.integers(-6, 7, size=(SIZE, SIZE, 3), dtype=np.int16)
    image = np.clip(colours[layer] + noise, 0, 255).astype(np.uint8)
    ids = palette.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    segments = np.append(ids, np.int32(0))[layer]
    return Scene(image, boxes, labels, relations_of(boxes), segments, ids.tolist())


def jpeg(image: np.ndarray) -> bytes:
    """The JPEG file of an (H, W, 3) uint8 image."""
    from PIL import Image

    buffer = io.BytesIO()
    # No chroma subsampling: it would smear the colours of the smallest shapes over their edges.
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
