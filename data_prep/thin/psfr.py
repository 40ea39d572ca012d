"""PSFR: a frame is a key frame when the corners of the last one are lost in several parts of the image.

Corners (Shi-Tomasi) are spread over 13 overlapping patches and followed from frame to frame (Lucas-Kanade). A patch
retains the share of its corners that is still followed; when at least `patches` of them retain less than `retention`,
the frame is key. What triggers is a cut or a fast change: corners found on the way join those that are followed, so
slow drift does not. Definition: SceneGraphVLM's utils/PSFR, after github.com/strangecreator/key-frame-selection.

The published code is followed exactly, to the last corner, at about a tenth of its time: the corner response of a
frame is computed once instead of once per patch, and each frame is decoded once. Needs OpenCV (`pip install
sgrl[thin]`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np

from data_prep.images import file_bytes
from data_prep.readers.record import Record
from data_prep.thin.thinning import Method, Unreadable, check_number, check_protocol
from sgrl.errors import SgrlError
from sgrl.images import open_image, opened, transparent
from sgrl.vocabulary import Vocabulary

SIZE = (640, 360)  # (width, height) in pixels that frames are scaled to, without regard to the aspect
_CORNERS = 60  # followed at a time
_PATCH_CORNERS = 10  # found per patch
_QUALITY = 0.3  # of the patch's strongest response
_DISTANCE = 15  # pixels between corners of a patch
_BLOCK = 3  # pixels: neighbourhood of the response and aperture of its derivative
_CELL = 10  # pixels: one corner per cell of this size
_RANK_PENALTY = 0.2  # per rank within the patch, so that corners are taken from all patches in turn
_MAX_ERROR = 15.0  # grey levels between the windows around a corner before and after
_FLOW: dict[str, Any] = {
    "winSize": (21, 21),
    "maxLevel": 3,
    "criteria": (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 30, 0.01),
}


class PSFR(Method):
    """Thinning by PSFR; see `data_prep.thin.thin`."""

    @dataclass(frozen=True)
    class Options:
        """What makes a key frame.

        Attributes:
            retention: share of a patch's corners below which it counts as lost, in (0, 1].
            patches: lost patches that make a key frame, 1 to 13.
            protocol: see `keyframes`.
        """

        retention: float = 0.3
        patches: int = 5
        protocol: str = "default"

        def __post_init__(self):
            _check(self.retention, self.patches, self.protocol)

    def __init__(self, vocabulary: Vocabulary, options: Options):
        self.options = options

    def select(self, records: Sequence[Record], unreadable: Unreadable) -> list[int]:
        """Positions of the key frames among the frames of one video."""
        order = list(range(len(records)))
        if self.options.protocol == "published":
            order.sort(key=lambda position: records[position].image.name)
        paths = [cast(Path, records[position].image) for position in order]  # frames of videos are files
        found = keyframes(_decoded(paths, unreadable), **asdict(self.options))
        return sorted(order[position] for position in found)


def keyframes(
    frames: Iterable[np.ndarray | None], retention: float = 0.3, patches: int = 5, protocol: str = "default"
) -> list[int]:
    """Positions of the key frames of one video, the first readable frame always among them.

    Args:
        frames: (H, W, 3) uint8 BGR images in time order, None where one could not be read: it is passed over, and the
            next one is compared with the last that could. Consumed one at a time.
        retention, patches: see `PSFR`. SceneGraphVLM uses 0.3 and 5 for PVSG; 0.5 and 3 keeps more.
        protocol: "published" counts corners on a grid of the frames' original size although they live in the image
            scaled to SIZE, so that part of the grid lies outside it, and sorts frames by file name. "default" lays
            the grid on the scaled image, and also gets over a key frame with corners in fewer than `patches` patches
            (a black one, say), after which the published code never finds another: the next frame that has corners
            in that many is key.

    Raises:
        SgrlError: a setting out of range, a frame that is no image.
    """
    _check(retention, patches, protocol)
    grid = _grid(*SIZE)
    counting = grid
    found: list[int] = []
    before = np.empty(0)  # the previous frame
    points = np.empty((0, 2), np.float32)
    at_key = np.empty(0)  # corners per patch at the last key frame
    for position, frame in enumerate(frames):
        if frame is None:
            continue
        grey = _grey(frame, position)
        if not found:
            if protocol == "published":
                counting = _grid(frame.shape[1], frame.shape[0])
            points = _corners(grey, grid, _CORNERS)
            at_key = _inside(points, counting).sum(1)
            found.append(position)
        else:
            followed, new_places = _follow(before, grey, points, grid)
            kept = _inside(points, counting)[:, followed].sum(1)
            filled = at_key > 0
            key = np.count_nonzero(kept[filled] / at_key[filled] < retention) >= patches
            points = _joined(new_places, _corners(grey, grid, _CORNERS - len(new_places)))
            if not key and protocol == "default" and np.count_nonzero(filled) < patches:
                key = np.count_nonzero(_inside(points, counting).any(1)) >= patches
            if key:
                at_key = _inside(points, counting).sum(1)
                found.append(position)
        before = grey
    return found


class _Patch(NamedTuple):
    x: int
    y: int
    width: int
    height: int


def _grid(width: int, height: int) -> list[_Patch]:
    """Thirds of the image, row by row, and the four patches around the corners where they meet."""
    w, h = max(1, width // 3), max(1, height // 3)
    patches = [_Patch(column * w, row * h, w, h) for row in range(3) for column in range(3)]
    return patches + [
        _Patch(int((column + 0.5) * w), int((row + 0.5) * h), w, h) for row in range(2) for column in range(2)
    ]


def _inside(points: np.ndarray, patches: list[_Patch]) -> np.ndarray:
    """(patches, points) bool; borders belong to both sides, so a point may lie in several patches."""
    x, y = points[:, 0], points[:, 1]
    left, top, width, height = np.array(patches, np.float32).T[:, :, None]
    return (left <= x) & (x <= left + width) & (top <= y) & (y <= top + height)


def _grey(frame: np.ndarray, position: int) -> np.ndarray:
    if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3):
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise SgrlError(f"frame {position}: expected an image of shape (H, W, 3) and type uint8, found {found}")
    return cv2.cvtColor(cv2.resize(frame, SIZE, interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2GRAY)


def _corners(grey: np.ndarray, patches: list[_Patch], limit: int) -> np.ndarray:
    """(N <= limit, 2) float32: the best corners of all patches, at most one per cell.

    Per patch the same as cv2.goodFeaturesToTrack with a mask. A response that equals the largest of its neighbourhood
    is a corner whatever the threshold is, so maxima are found once for all patches.
    """
    if limit <= 0:
        return np.empty((0, 2), np.float32)
    response = cv2.cornerMinEigenVal(grey, _BLOCK, ksize=_BLOCK)
    # OpenCV multiplies in double precision and then compares single-precision numbers.
    thresholds = [
        np.float32(float(response[p.y : p.y + p.height, p.x : p.x + p.width].max()) * _QUALITY) for p in patches
    ]
    inner = response[1:-1, 1:-1]
    largest = cv2.dilate(response, None)[1:-1, 1:-1]
    y, x = np.nonzero((inner == largest) & (inner > max(min(thresholds), 0)))
    value = inner[y, x]
    # Strongest first; of equals, the one that comes last in the image.
    order = np.lexsort((-x, -y, -value))
    value, x, y = value[order], x[order] + 1, y[order] + 1
    keys, places = [], []
    for patch, threshold in zip(patches, thresholds, strict=True):
        candidates = np.flatnonzero(
            (value > threshold)
            & (x >= patch.x)
            & (x < patch.x + patch.width)
            & (y >= patch.y)
            & (y < patch.y + patch.height)
        )
        chosen: list[tuple[int, int]] = []
        for i, cx, cy in zip(candidates.tolist(), x[candidates].tolist(), y[candidates].tolist(), strict=True):
            if all((cx - ox) ** 2 + (cy - oy) ** 2 >= _DISTANCE**2 for ox, oy in chosen):
                score, rank = float(value[i]), len(chosen)
                keys.append(score - _RANK_PENALTY * rank * (1 - 1 / (1 + math.exp(0.3 - score))))
                chosen.append((cx, cy))
                if len(chosen) == _PATCH_CORNERS:
                    break
        places += chosen
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for i in np.argsort(-np.array(keys, np.float32), kind="stable").tolist():
        best.setdefault((places[i][0] // _CELL, places[i][1] // _CELL), places[i])
    return np.array(list(best.values())[:limit], np.float32).reshape(-1, 2)


def _follow(
    before: np.ndarray, now: np.ndarray, points: np.ndarray, patches: list[_Patch]
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the points that are found again, and their new places, (N, 2) float32.

    Patch by patch, as if there were nothing around it; the first patch in which a point is found decides.
    """
    found = np.zeros(len(points), bool)
    places = points.copy()
    for patch, inside in zip(patches, _inside(points, patches), strict=True):
        wanted = np.flatnonzero(inside & ~found)
        if not len(wanted):
            continue
        crop = np.s_[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width]
        shift = np.array([patch.x, patch.y], np.float32)
        ends, status, error = cv2.calcOpticalFlowPyrLK(before[crop], now[crop], points[wanted] - shift, None, **_FLOW)
        good = (status[:, 0] == 1) & (error[:, 0] <= _MAX_ERROR)
        places[wanted[good]] = ends[good] + shift
        found[wanted[good]] = True
    followed = np.flatnonzero(found)
    return followed, places[followed]


def _joined(followed: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """The followed points, and the fresh ones in cells that none of them is in."""
    taken = set(map(tuple, np.floor(followed / _CELL).astype(int).tolist()))
    free = [cell not in taken for cell in map(tuple, np.floor(fresh / _CELL).astype(int).tolist())]
    return np.vstack([followed, fresh[free]]) if any(free) else followed


def _decoded(paths: Sequence[Path], unreadable: Unreadable) -> Iterator[np.ndarray | None]:
    for path in paths:
        try:
            yield read(path)
        except SgrlError as error:
            unreadable(str(error))
            yield None


def read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, BGR. Raises SgrlError for a file that is missing, truncated or no image.

    OpenCV decodes plain colours of JPEG and PNG, faster and to the same pixels; other files are `sgrl.images`'s.
    """
    raw = file_bytes(path)
    frame = None
    with opened(raw, path) as image:
        plain = image.format in ("JPEG", "PNG") and image.mode == "RGB" and not transparent(image)
        if plain and _complete(raw):
            frame = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(open_image(raw, path))[:, :, ::-1] if frame is None else frame


def _complete(raw: bytes) -> bool:
    """False for a JPEG or PNG without its end, which OpenCV would fill up with grey."""
    if raw.startswith(b"\x89PNG"):
        return b"IEND" in raw[-64:]
    return raw.rfind(b"\xff\xd9") > raw.rfind(b"\xff\xda")  # its end comes after the start of its last scan


def _check(retention: float, patches: int, protocol: str) -> None:
    check_protocol(protocol)
    check_number("retention", retention, 0, 1)
    check_number("patches", patches, 0, 13, whole=True)
