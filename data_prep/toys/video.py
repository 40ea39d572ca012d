"""Toy videos: the shapes of data_prep/toys/scene.py, moving.

A video is a few 96 x 96 frames of two to four shapes. Each shape stands still or moves in steps of four pixels, every
frame or every second or third one, and turns back at the border; a small one may ride on a larger one. Some shapes are
there for a part of the video only. Relations follow from the boxes of a frame exactly as in the toy world's images.
With a person, the first shape is a pentagon that points where it goes. Where a video is `blurred`, a shape is a grey
blob in some of its frames: what it is can be seen in others only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_prep.toys import scene
from data_prep.toys.scene import BLOB, GRID, OBJECTS, SIZE, SPLITS
from sgrl.errors import SgrlError

PERSON = "person"
Box = tuple[int, int, int, int]
_GREY = (128, 128, 128)
_PATIENCE = 40  # places tried for one shape before the video is begun anew


class Video(NamedTuple):
    """T frames of N shapes. Shapes keep their index."""

    images: np.ndarray  # (T, 96, 96, 3) uint8, RGB
    layers: np.ndarray  # (T, 96, 96) int8: index of the shape that is seen, -1 is background
    labels: list[str]  # N, of scene.OBJECTS; the first is PERSON in a video with a person
    boxes: list[list[Box | None]]  # T x N, xyxy half-open, None while a shape is not there
    facing: list[int]  # T, where the person points: -1 left, 1 right; 0 without a person
    relations: list[list[tuple[int, str, int]]]  # per frame (subject, one of scene.PREDICATES, object)


class _Path(NamedTuple):
    """The way of one shape."""

    label: str
    boxes: list[Box | None]
    facing: list[int]
    blurred: frozenset[int] = frozenset()  # frames

    def drawn(self, frame: int) -> str:
        """The name of its picture."""
        if frame in self.blurred:
            return BLOB
        return self.label if self.label != PERSON else f"{PERSON}-{'left' if self.facing[frame] < 0 else 'right'}"


def video(
    seed: int, index: int, split: str = "train", frames: int = 16, person: bool = False, blurred: float = 0.0
) -> Video:
    """Draw video `index` of a split. The same arguments give the same video, whatever was drawn before.

    blurred: the share of frames in which a shape that is not the person is a blob, where it stays visible as one.

    Raises SgrlError for a split that is neither "train" nor "test", and for less than one frame.
    """
    if split not in SPLITS:
        raise SgrlError(f"split is {split!r}, expected 'train' or 'test'")
    if frames < 1:
        raise SgrlError(f"a video of {frames} frames cannot be drawn; give a number above 0")
    rng = np.random.Generator(np.random.SFC64([seed, SPLITS.index(split), index, frames, int(person)]))
    paths = None
    while paths is None:
        paths = _paths(rng, frames, int(rng.integers(2, 5)), person)
    if blurred:
        paths = _blurred(paths, frames, blurred, rng.spawn(1)[0])  # what else is drawn stays the same
    layers = np.stack([_layer(paths, frame) for frame in range(frames)])
    return Video(
        _images(rng, layers, paths),
        layers,
        [path.label for path in paths],
        [[path.boxes[frame] for path in paths] for frame in range(frames)],
        paths[0].facing if person else [0] * frames,
        [_relations(paths, frame) for frame in range(frames)],
    )


def _paths(rng, frames: int, count: int, person: bool) -> list[_Path] | None:
    """The ways of `count` shapes that all stay visible, or None if they are in each other's way."""
    paths: list[_Path] = []
    for _ in range(_PATIENCE * count):
        label = PERSON if person and not paths else OBJECTS[int(rng.integers(len(OBJECTS)))]
        path = _path(rng, frames, label, paths)
        if path is not None and all(_visible([*paths, path], frame) for frame in range(frames)):
            paths.append(path)
            if len(paths) == count:
                return paths
    return None


def _path(rng, frames: int, label: str, earlier: list[_Path]) -> _Path | None:
    hosts = [path.boxes[0] for path in earlier if path.boxes[0] is not None]
    box, nested = scene.place(rng, hosts, [False] * len(hosts))
    if box is None:
        return None
    side = box[2] - box[0]
    started = ((path, path.boxes[0]) for path in earlier)
    host, at = next(((path, at) for path, at in started if at and _inside(box, at)), (None, None))
    if (
        nested and host is not None and at is not None and rng.random() < 0.6
    ):  # it rides along, and is gone when its host is
        dx, dy = box[0] - at[0], box[1] - at[1]
        corners = [(there[0] + dx, there[1] + dy) if there else None for there in host.boxes]
    else:
        vx, vy = (GRID * int(step) for step in rng.integers(-1, 2, size=2))
        wait = int(rng.integers(1, 4))
        room = SIZE - side
        corners = [
            (_reflected(box[0] + vx * (frame // wait), room), _reflected(box[1] + vy * (frame // wait), room))
            for frame in range(frames)
        ]
    if rng.random() < 0.3 and frames > 2:
        length = int(rng.integers(frames // 3, frames))
        first = int(rng.integers(frames - length + 1))
        corners = [corner if first <= frame < first + length else None for frame, corner in enumerate(corners)]
    boxes = [(c[0], c[1], c[0] + side, c[1] + side) if c else None for c in corners]
    facing, now = [], 1 if rng.random() < 0.5 else -1
    for frame, corner in enumerate(corners):
        before = corners[frame - 1] if frame else None
        if corner and before and corner[0] != before[0]:
            now = 1 if corner[0] > before[0] else -1
        facing.append(now)
    return _Path(label, boxes, facing)


def _reflected(position: int, room: int) -> int:
    """A position that turns back at 0 and at `room`."""
    if room == 0:
        return 0
    position %= 2 * room
    return min(position, 2 * room - position)


def _inside(a: Box, b: Box) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def _present(paths: list[_Path], frame: int) -> tuple[list[int], list[Box], list[str]]:
    """(indices, boxes, names of the pictures) of the shapes that are there."""
    there = [(i, path, box) for i, path in enumerate(paths) if (box := path.boxes[frame]) is not None]
    return [i for i, _, _ in there], [box for _, _, box in there], [path.drawn(frame) for _, path, _ in there]


def _visible(paths: list[_Path], frame: int) -> bool:
    _, boxes, names = _present(paths, frame)
    return len(set(boxes)) == len(boxes) and scene.all_visible(scene.paint(boxes, names), boxes, names)


def _layer(paths: list[_Path], frame: int) -> np.ndarray:
    there, boxes, names = _present(paths, frame)
    return np.array([*there, -1], np.int8)[scene.paint(boxes, names)]


def _relations(paths: list[_Path], frame: int) -> list[tuple[int, str, int]]:
    there, boxes, _ = _present(paths, frame)
    if len(there) < 2:
        return []
    order = sorted(range(len(there)), key=lambda i: boxes[i])  # as the toy world lists them: the left one first
    found = scene.relations_of([boxes[i] for i in order])
    return sorted((there[order[s]], predicate, there[order[o]]) for s, predicate, o in found)


def _blurred(paths: list[_Path], frames: int, share: float, rng) -> list[_Path]:
    """The same ways, out of focus in some frames."""
    paths = list(paths)
    for frame, index in np.argwhere(rng.random((frames, len(paths))) < share).tolist():
        path = paths[index]
        if path.label == PERSON or path.boxes[frame] is None:
            continue
        paths[index] = path._replace(blurred=path.blurred | {frame})
        if not _visible(paths, frame):
            paths[index] = path
    return paths


def _images(rng, layers: np.ndarray, paths: list[_Path]) -> np.ndarray:
    """Shapes keep their colours, blobs are grey; the noise is another in each frame."""
    count, frames = len(paths), len(layers)
    palette = scene.COLOURS[rng.permutation(len(scene.COLOURS))[:count]]
    drawn = palette + rng.integers(-15, 16, size=(count, 3), dtype=np.int16)
    colours = np.vstack([drawn, np.full((1, 3), rng.integers(225, 251), np.int16)])  # last row: layer == -1
    colours = np.repeat(colours[None], frames, axis=0)
    for index, path in enumerate(paths):
        colours[sorted(path.blurred), index] = _GREY
    noise = rng.integers(-6, 7, size=(*layers.shape, 3), dtype=np.int16)
    return np.clip(colours[np.arange(frames)[:, None, None], layers] + noise, 0, 255).astype(np.uint8)
