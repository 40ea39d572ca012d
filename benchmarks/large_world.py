"""A larger toy world for gpu.py: 224 x 224 images of four to eight shapes, 12 classes and 20 predicates.

A class is a shape and a colour. An object is related to its nearest neighbour: `inside`, `around`, `overlapping`, and
else one of eight directions, near or far, or `beside` if the centres meet. Coordinates are multiples of four pixels. A
scene is a function of (seed, split, index). Written as rows of the Hub, which data_prep/to_toon.py reads.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.toys.scene import OBJECTS, shape_mask

SIZE, GRID = 224, 4
COLOURS = {"red": (200, 40, 40), "green": (40, 150, 60), "blue": (40, 80, 200)}
CLASSES = tuple(f"{colour}-{shape}" for colour in COLOURS for shape in OBJECTS)
DIRECTIONS = (
    "left-of",
    "above-left-of",
    "above",
    "above-right-of",
    "right-of",
    "below-right-of",
    "below",
    "below-left-of",
)
PREDICATES = ("inside", "around", "overlapping", "beside", *DIRECTIONS, *(f"far-{name}" for name in DIRECTIONS))
FAR = 72  # px between centres

Box = tuple[int, int, int, int]


def predicate(a: Box, b: Box) -> str:
    """How the object in box `a` stands to the one in `b`.

    >>> predicate((0, 0, 20, 20), (40, 0, 60, 20)), predicate((4, 4, 8, 8), (0, 0, 40, 40))
    ('left-of', 'inside')
    """
    if all(x >= y for x, y in zip(a[:2], b[:2], strict=True)) and all(
        x <= y for x, y in zip(a[2:], b[2:], strict=True)
    ):
        return "inside"
    if all(x <= y for x, y in zip(a[:2], b[:2], strict=True)) and all(
        x >= y for x, y in zip(a[2:], b[2:], strict=True)
    ):
        return "around"
    if min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]):
        return "overlapping"
    right, down = (b[0] + b[2] - a[0] - a[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2
    if not right and not down:
        return "beside"
    name = DIRECTIONS[round(math.atan2(down, right) / (math.pi / 4)) % 8]
    return f"far-{name}" if math.hypot(right, down) > FAR else name


def scene(seed: int, split: str, index: int) -> tuple[np.ndarray, list[Box], list[str], list[tuple[int, str, int]]]:
    """Image (224, 224, 3) uint8, boxes (half-open pixels), labels and relations; objects from left to right."""
    rng = np.random.default_rng([seed, split == "test", index])
    while True:
        boxes: list[Box] = []
        for _ in range(int(rng.integers(4, 9))):
            side = GRID * int(rng.integers(5, 13))
            x, y = (GRID * int(rng.integers(0, (SIZE - side) // GRID + 1)) for _ in "xy")
            boxes.append((x, y, x + side, y + side))
        boxes.sort()
        labels = [CLASSES[int(rng.integers(len(CLASSES)))] for _ in boxes]
        layer = np.full((SIZE, SIZE), -1, np.int8)
        for i in sorted(range(len(boxes)), key=lambda i: (boxes[i][0] - boxes[i][2], boxes[i])):  # large ones first
            x1, y1, x2, y2 = boxes[i]
            layer[y1:y2, x1:x2][shape_mask(labels[i].partition("-")[2], x2 - x1)] = i
        drawn = [
            shape_mask(label.partition("-")[2], box[2] - box[0]).sum()
            for box, label in zip(boxes, labels, strict=True)
        ]
        if all(2 * (layer == i).sum() >= pixels for i, pixels in enumerate(drawn)):
            break
    image = np.full((SIZE, SIZE, 3), 230, np.int16)
    for i, label in enumerate(labels):
        image[layer == i] = COLOURS[label.partition("-")[0]]
    image += rng.integers(-12, 13, image.shape, dtype=np.int16)
    centres = np.array([((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes])
    distances = np.hypot(*(centres[:, None] - centres).transpose(2, 0, 1)) + np.diag([np.inf] * len(boxes))
    nearest = {(i, j) for i, j in enumerate(map(int, distances.argmin(axis=1)))}
    pairs = sorted((i, j) for i, j in nearest if i < j or (j, i) not in nearest)  # each pair once
    relations = [(i, predicate(boxes[i], boxes[j]), j) for i, j in pairs]
    return image.clip(0, 255).astype(np.uint8), boxes, labels, relations


def write(folder: Path, train: int, test: int, seed: int = 0) -> None:
    """`folder`/{train,test}/rows.jsonl and their images."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for split, count in (("train", train), ("test", test)):
        (part / split).mkdir(parents=True)
        with open(part / split / "rows.jsonl", "w") as file:
            for index in range(count):
                image, boxes, labels, relations = scene(seed, split, index)
                name = f"{split}-{index}.png"
                Image.fromarray(image).save(part / split / name)
                ids = [f"{label}.{i + 1}" for i, label in enumerate(labels)]
                objects = [{"id": one, "bbox": box} for one, box in zip(ids, boxes, strict=True)]
                edges = [{"subject": ids[i], "predicate": name, "object": ids[j]} for i, name, j in relations]
                row = {"image_id": f"{split}-{index}", "image_file": name}
                row |= {"objects": json.dumps(objects), "relationships": json.dumps(edges)}
                file.write(json.dumps(row) + "\n")
    part.rename(folder)
