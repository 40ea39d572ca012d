"""Draw a toy world of coloured shapes and write it in the official layout of a data set, PSG's by default.

    python data_prep/toyworld.py --output toyworld --train 16000 --test 1000 --seed 0
    python data_prep/to_toon.py --dataset psg --root toyworld --output toyworld-toon --resize keep --prompt short
    python data_prep/toyworld.py --layout pvsg --output toyvideos --train 1000 --test 60 --frames 16

Other layouts are `--layout vg150`, `vg`, `coco` and `hub`, and videos with motion: `pvsg`, `action_genome`, and with
depth or transposed masks `psg4d_gta` and `psg4d_hoi` (see data_prep/toyvideo.py).

A scene is a 96 x 96 image of two to four shapes. Every coordinate is a multiple of four pixels. Objects are listed
from left to right. An object is related to its nearest neighbour only (distance of the centres): `inside` (box in
box), `overlapping` (boxes meet), and else `left-of` or `above`, whichever axis is longer, if the centres are less than
50 px apart. Shapes stay visible: the box of what can be seen of a shape is the box of the shape, and at least half of
its pixels show. Colour says nothing about the class. A scene is a function of (seed, split, index) and nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgrl.errors import SgrlError, suggest
from sgrl.files import atomic_path, folder_lock
from sgrl.process import run_command

SIZE = 96
GRID = 4
OBJECTS = ("circle", "square", "triangle", "cross")
PREDICATES = ("inside", "overlapping", "left-of", "above")
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
_FIRST_TEST_ID = 10_000_001  # image ids of the splits must not meet: train counts from 1
_NOT_PREDICATES = ("train", "test", "frames", "objects", "without relations")  # in the counts of a writer
_WRITER_VERSION = 1  # raise it when the same arguments give other files


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
    boxes, nested, labels = [], [], []
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


def _record(drawn: Scene, image_id: int, folder: str) -> dict:
    """A record of psg.json, keys in the official order."""
    ids, areas = np.unique(drawn.segments, return_counts=True)
    area = dict(zip(ids.tolist(), areas.tolist(), strict=True))
    categories = [OBJECTS.index(label) for label in drawn.labels]
    return {
        "file_name": f"{folder}/{image_id:012d}.jpg",
        "height": SIZE,
        "width": SIZE,
        "image_id": str(image_id),
        "pan_seg_file_name": f"panoptic_{folder}/{image_id:012d}.png",
        "segments_info": [
            {"id": segment, "category_id": category, "iscrowd": 0, "isthing": 1, "area": area[segment]}
            for segment, category in zip(drawn.segment_ids, categories, strict=True)
        ],
        "relations": [[s, o, PREDICATES.index(predicate)] for s, predicate, o in drawn.relations],
        "annotations": [
            {"bbox": [float(value) for value in box], "bbox_mode": 0, "category_id": category}
            for box, category in zip(drawn.boxes, categories, strict=True)
        ],
        "coco_image_id": str(image_id),
    }


def _save_images(drawn: Scene, coco: Path, record: dict) -> None:
    from PIL import Image

    # No chroma subsampling: it would smear the colours of the smallest shapes over their edges.
    Image.fromarray(drawn.image).save(coco / record["file_name"], quality=95, subsampling=0)
    rgb = drawn.segments[..., None] >> np.array([0, 8, 16]) & 255
    Image.fromarray(rgb.astype(np.uint8)).save(coco / record["pan_seg_file_name"], compress_level=1)


def write(output: str | Path, train: int, test: int, seed: int = 0, progress: bool = False) -> dict | None:
    """Write `train` + `test` scenes to `output`/psg/psg.json and `output`/coco in PSG's official layout.

    psg.json comes last and in one piece, so a folder that has it is complete. Returns counts of what was drawn, or
    None where the folder already holds the scenes of the same arguments. Raises SgrlError for impossible arguments
    and for a folder whose psg.json is not a toy world.
    """
    from tqdm import tqdm

    if train < 0 or test < 0 or train + test == 0 or train >= _FIRST_TEST_ID:
        raise SgrlError(f"cannot draw {train} training and {test} test scenes; give numbers from 0 to 10,000,000")
    output = Path(output)
    annotations, coco = output / "psg" / "psg.json", output / "coco"
    marker = output / "toyworld.json"
    arguments = {"train": train, "test": test, "seed": seed, "version": _WRITER_VERSION}
    if annotations.exists():
        if not marker.exists():
            raise SgrlError(f"{annotations} exists and was not written by this command; choose another --output")
        if json.loads(marker.read_text()) == arguments:
            return None
        annotations.unlink()  # from here on the folder is incomplete, until the new file is renamed into place
        shutil.rmtree(coco, ignore_errors=True)
    for folder in ("train2017", "val2017"):
        (coco / folder).mkdir(parents=True, exist_ok=True)
        (coco / f"panoptic_{folder}").mkdir(exist_ok=True)
    with atomic_path(marker) as temporary:
        temporary.write_text(json.dumps(arguments))

    counts = Counter()
    todo = [("train", "train2017", i, i + 1) for i in range(train)]
    todo += [("test", "val2017", i, _FIRST_TEST_ID + i) for i in range(test)]
    with atomic_path(annotations) as temporary, temporary.open("w") as file:
        file.write('{"data": [')
        bar = tqdm(todo, desc="drawing scenes", unit=" scenes", disable=not progress)
        for number, (split, folder, index, image_id) in enumerate(bar):
            drawn = scene(seed, index, split)
            record = _record(drawn, image_id, folder)
            _save_images(drawn, coco, record)
            file.write((",\n" if number else "\n") + json.dumps(record))
            counts[split] += 1
            counts["objects"] += len(drawn.boxes)
            counts["without relations"] += not drawn.relations
            counts.update(predicate for _, predicate, _ in drawn.relations)
        classes = {
            "thing_classes": OBJECTS,
            "stuff_classes": [],
            "predicate_classes": PREDICATES,
            "test_image_ids": [str(_FIRST_TEST_ID + i) for i in range(test)],
        }
        file.write("\n], " + json.dumps(classes)[1:] + "\n")
    return dict(counts)


class Layout(NamedTuple):
    """One way to write the toy world.

    Attributes:
        writer: module and function, called with output, train, test, seed, progress (and frames, for videos).
        train, test: how many scenes or videos by default.
        frames: of a video by default, 0 for images.
        annotations: the file that is written last.
    """

    writer: str
    train: int
    test: int
    frames: int
    annotations: str


LAYOUTS = {
    "psg": Layout("data_prep.toyworld:write", 16000, 1000, 0, "psg/psg.json"),
    "vg150": Layout("data_prep.toy_vg150:write", 16000, 1000, 0, "VG-SGG.h5"),
    "vg": Layout("data_prep.toy_exports:write_vg", 7000, 3000, 0, "relationships.json"),
    "coco": Layout("data_prep.toy_exports:write_coco", 16000, 1000, 0, "test/_annotations.coco.json"),
    "hub": Layout("data_prep.toy_exports:write_hub", 16000, 1000, 0, "test/train-00000-of-00001.parquet"),
    "pvsg": Layout("data_prep.toy_pvsg:write", 1000, 60, 16, "pvsg.json"),
    "action_genome": Layout(
        "data_prep.toy_action_genome:write", 1000, 60, 16, "annotations/object_bbox_and_relationship.pkl"
    ),
    "psg4d_gta": Layout("data_prep.toy_psg4d:write_gta", 100, 20, 16, "sailvos3d.json"),  # large: bmp and npy files
    "psg4d_hoi": Layout("data_prep.toy_psg4d:write_hoi", 1000, 60, 16, "psg4d_hoi.json"),
}
"""Name on the command line -> how it is written."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--output", required=True, help="folder to write to")
    add("--layout", default="psg", help=f"of which data set: {', '.join(LAYOUTS)} (default: %(default)s)")
    add("--train", type=int, help="training scenes, or videos (default: 16000, 1000 videos; vg 7000, psg4d_gta 100)")
    add("--test", type=int, help="test scenes, or videos (default: 1000, 60 videos; vg 3000, psg4d_gta 20)")
    add("--frames", type=int, help="of a video (default: 16)")
    add("--seed", type=int, default=0, help="another seed gives other scenes (default: %(default)s)")
    return parser


def run(args: argparse.Namespace) -> None:
    """Check the arguments, draw, and print what was drawn. Raises SgrlError."""
    if args.layout not in LAYOUTS:
        raise SgrlError(f"unknown layout {args.layout!r}{suggest(args.layout, LAYOUTS)}")
    layout = LAYOUTS[args.layout]
    if args.frames is not None and not layout.frames:
        raise SgrlError(f"--frames is for videos; the layout {args.layout} has images")
    train = layout.train if args.train is None else args.train
    test = layout.test if args.test is None else args.test
    options = {"frames": layout.frames if args.frames is None else args.frames} if layout.frames else {}
    module, _, function = layout.writer.partition(":")
    started = time.perf_counter()
    counts = getattr(import_module(module), function)(
        args.output, train, test, seed=args.seed, progress=sys.stderr.isatty(), **options
    )
    if counts is None:
        print(f"{args.output} already holds these scenes; nothing to do")
        return
    scenes = counts.get("frames", train + test)
    named = {name: counts[name] for name in counts if name not in _NOT_PREDICATES and counts[name]}
    relations = sum(named.values())
    kind = f"videos of {options['frames']} frames" if options else "scenes"
    print(f"{train + test:,} {kind} in {time.perf_counter() - started:.0f} s: {train:,} train, {test:,} test")
    unit = "frame" if options else "scene"
    print(f"  {counts['objects'] / scenes:.2f} objects and {relations / scenes:.2f} relations per {unit},", end=" ")
    print(f"{counts.get('without relations', 0) / scenes:.1%} of the {unit}s have no relation")
    print("  relations: " + ", ".join(f"{name} {number / relations:.0%}" for name, number in sorted(named.items())))
    print(f"  {args.output}/{layout.annotations}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the head of this file. Returns the exit code."""
    args = _parser().parse_args(arguments)
    return run_command("toyworld", lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    try:
        with folder_lock(args.output):
            run(args)
    except KeyboardInterrupt as error:
        error.args = (f"; {args.output} is incomplete until the command is run again",)
        raise


if __name__ == "__main__":
    sys.exit(main())
