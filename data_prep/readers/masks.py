"""Segmentation masks: image files and arrays, which of them belong to which image, and their boxes."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from sgrl.errors import SgrlError
from sgrl.graph import GraphError
from sgrl.images import opened

_DIRECT = 1 << 12  # below that, all values are located at once, wanted or not
_TABLE = 1 << 22  # largest mask value that is looked up in a table
LAST_FRAME = 1 << 20
"""The largest number of a frame that a mask can belong to."""

_LARGEST = 1 << 26  # pixels; what is more is not a frame of a video but a bomb
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def boxes(mask: np.ndarray, ids: Iterable[int]) -> dict[int, tuple[int, int, int, int]]:
    """The boxes of the pixels that have each value.

    Args:
        mask: (height, width) of integers.
        ids: values to look for; values that no pixel has are left out of the result.

    Returns:
        value -> x1, y1, x2, y2, half-open, in the order of `ids`.
    """
    from scipy.ndimage import find_objects

    ids = list(dict.fromkeys(map(int, ids)))
    if not mask.size or not ids:
        return {}
    low, high = int(mask.min()), int(mask.max())
    if high < _DIRECT and min(ids) > 0:
        parts = find_objects(mask, max(high, 1))  # one pass over the pixels
        return {value: _box(parts[value - 1]) for value in ids if value <= high and parts[value - 1] is not None}
    labels = np.arange(1, len(ids) + 1, dtype=np.int32)
    if low >= 0 and high < _TABLE:
        table = np.zeros(high + 1, np.int32)
        for value, label in zip(ids, labels, strict=True):
            if 0 <= value <= high:
                table[value] = label
        ranked = table[mask]
    else:
        ranked = np.zeros(mask.shape, np.int32)
        for value, label in zip(ids, labels, strict=True):
            ranked[mask == value] = label
    found = find_objects(ranked, len(ids))  # one pass over the pixels
    return {value: _box(part) for value, part in zip(ids, found, strict=True) if part is not None}


def load_image(path: Path) -> np.ndarray:
    """(height, width) of the values in a mask that is an image file. Palette and grey images hold them as they are,
    colours as R + 256 G + 65536 B.

    Raises GraphError for a file that does not open, is of another kind, or has more pixels than a frame can have.
    """
    try:
        with opened(path) as image:
            _check_pixels(path, image.height, image.width)
            if image.mode in ("RGB", "RGBA"):
                return np.asarray(image.convert("RGB")).astype(np.int32) @ np.array([1, 256, 65536], np.int32)
            mask = np.asarray(image)
    except GraphError:
        raise
    except SgrlError as error:
        raise GraphError(f"the mask cannot be read: {error}") from None
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise GraphError(f"mask {path} has the mode {image.mode}; expected palette, grey or RGB")
    return mask


def load_array(path: Path) -> np.ndarray:
    """A mask of whole numbers, two axes, from an .npy file or the first array of an .npz. Never unpickles, and makes
    no array before its header has been found to be that of a frame.

    Raises GraphError for anything else.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
            file.seek(0)
            array = _unzipped(path, file) if zipped else _array(path, file)
    except GraphError:
        raise
    except Exception as error:  # numpy and zipfile raise OSError, EOFError, ValueError, BadZipFile, KeyError, ...
        raise GraphError(f"mask {path} cannot be read: {type(error).__name__}: {error}") from None
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 or (array.dtype.kind == "f" and (array % 1).any()):
        raise GraphError(
            f"mask {path} has the shape {array.shape} of {array.dtype}; expected two axes of whole numbers"
        )
    return array.astype(np.int64) if array.dtype.kind == "f" or array.dtype == np.uint64 else array


def _unzipped(path: Path, file) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        member = archive.getinfo("array.npy" if "array.npy" in names else names[0])
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA's buffers may be gigabytes
            raise GraphError(f"mask {path} is not compressed as numpy does it")
        with archive.open(member) as opened:
            return _array(path, opened)


def _array(path: Path, file) -> np.ndarray:
    shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    if dtype.kind not in "iuf":
        raise GraphError(f"mask {path} has the shape {shape} of {dtype}; expected two axes of whole numbers")
    _check_pixels(path, *shape)
    size = math.prod(shape) * dtype.itemsize
    data = file.read(size)
    if len(data) < size:
        raise GraphError(f"mask {path} cannot be read: it is truncated, {len(data):,} bytes of {size:,} are there")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _check_pixels(path: Path, *shape: int) -> None:
    if math.prod(shape) > _LARGEST:
        raise GraphError(f"mask {path} has the shape {shape}; expected {_LARGEST:,} pixels at most")


def numbered(folder: Path, suffixes: Sequence[str] = (".png", ".jpg", ".jpeg")) -> dict[int, Path]:
    """Number of a frame -> its file; of several the suffix that stands first. Empty without such a folder."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):  # a name with a zero byte is no folder either
        return {}
    found: dict[str, dict[int, Path]] = {suffix: {} for suffix in suffixes}
    for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if suffix in found and stem.isascii() and stem.isdecimal():
            found[suffix][int(stem)] = folder / name
    return {number: path for suffix in reversed(suffixes) for number, path in found[suffix].items()}


def first_image(masks: Collection[int], images: Collection[int]) -> int | None:
    """The number of the image that belongs to mask 0 of a video: 0 or, where the images were numbered from 1 (as
    ffmpeg does unless it is told otherwise) and the masks from 0, 1. None if that cannot be told: image 0 is missing,
    but the last image is not one behind the last mask, as both could come of an incomplete copy.
    """
    if not masks or not images or 0 not in masks or 0 in images:
        return 0
    if min(images) == 1 and max(images) == max(masks) + 1:
        return 1
    return None if min(images) == 1 else 0


def _box(part: tuple[slice, slice]) -> tuple[int, int, int, int]:
    return part[1].start, part[0].start, part[1].stop, part[0].stop
