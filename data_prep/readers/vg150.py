"""VG150, the part of Visual Genome that Xu et al. (CVPR 2017) chose: VG-SGG.h5, or VG-SGG-with-attri.h5.

    ROOT/VG-SGG.h5                  boxes, labels, relations: one row per image, all images one after the other
    ROOT/VG-SGG-dicts.json          the class lists, 1-based (…-with-attri.json beside the other file)
    ROOT/image_data.json            row i of the h5 file is entry i of this list without the four corrupt images
    ROOT/VG_100K/, ROOT/VG_100K_2/  images; one folder with all of them is fine

Boxes are stored as centre and size, in pixels of the image scaled to a long side of 1024, and may stick out of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.readers.json_stream import read_json
from data_prep.readers.record import OnDamage, Record, RecordError, SourceError, attempt
from data_prep.readers.vg_images import ImageList, entry_id, true_size
from sgrl.errors import SgrlError, suggest
from sgrl.extras import require
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.vocabulary import Vocabulary, get_vocabulary

FILES = {"VG-SGG.h5": "VG-SGG-dicts.json", "VG-SGG-with-attri.h5": "VG-SGG-dicts-with-attri.json"}
"""Annotation file -> its class lists."""

LONG_SIDE = 1024
VALIDATION = 5000  # images, the first of the training rows that have relations
_SPLITS = {0: "train", 1: "val", 2: "test"}
_RANGES = ("img_to_first_box", "img_to_last_box", "img_to_first_rel", "img_to_last_rel")
_COLUMNS = {"boxes_1024": 4, "labels": 1, "relationships": 2, "predicates": 1}  # name -> numbers per row
_WINDOW = 1 << 16  # rows of a column in memory, and the most that one image may have
_LARGEST_CHUNK = 64 << 20  # bytes that HDF5 unpacks at once, whatever is asked for
_COMPRESSION = 1100  # at best: deflate makes 1,032 bytes of one
_TOTALS = {
    "rows": 108073,
    "boxes": 1145398,
    "relations": 622705,
    "training rows": 75651,
    "test rows": 32422,
    "training images with relations": 57723,
    "validation images": 5000,
    "test images with relations": 26446,
}


class VG150Reader:
    """Reads a VG150 folder; see `data_prep.readers.record.Reader`.

    Args:
        root: the folder that holds the files above.
        annotations: name of the h5 file; by default the first of FILES that is there.
        validation: so many of the first training rows with relations become the split "val" (Zellers et al., CVPR
            2018). By default 5,000 for the official class lists, 0 for others.

    Raises:
        SgrlError: a missing file, one that is truncated or has other contents, h5 rows that do not match the images.
    """

    default_size = None
    codec = "toon"

    def __init__(self, root: str | Path, annotations: str | None = None, validation: int | None = None):
        self.root = Path(root)
        self.source = _find(self.root, annotations)
        self._images = ImageList(self.root)
        objects, predicates = _class_lists(self.source)
        official = get_vocabulary("vg150")
        if (objects, predicates) == (official.objects, official.predicates):
            self.vocabulary = official
        else:
            self.vocabulary = Vocabulary(self.root.resolve().name, objects, predicates)
        self.name = self.vocabulary.name
        if validation is None:
            validation = VALIDATION if self.vocabulary is official else 0
        if validation < 0:
            raise SgrlError(f"validation is {validation}; expected a number of images")
        self._validation = validation
        self.notes: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        with _open(self.source) as file:
            rows = _check_shapes(self.source, file)
        entries = self._images.fit(rows)
        if rows != entries:
            raise SgrlError(
                f"{self.source} has {rows:,} images, {self._images.path} has {entries:,} (without the corrupt ones). "
                "Rows are matched by position, so both must come from one release"
            )

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """All rows in file order. A damaged one is handed to `on_damage` and skipped; without it, it is raised."""
        self.notes.clear()
        self._found.clear()
        with _open(self.source) as file:
            columns = {name: _Column(file[name]) for name in ("split", *_RANGES, *_COLUMNS)}
            for name, dataset in (("boxes", "boxes_1024"), ("relations", "relationships")):
                self._found[name] = len(file[dataset])
            for row, entry in enumerate(self._images):
                record = attempt(on_damage, f"{self.source.name}, row {row}", self._record, row, entry, columns)
                if record is not None:
                    yield record

    def totals(self) -> dict[str, tuple[int, int]]:
        """Rows, boxes, relations and splits of the official files; empty for other class lists."""
        expected = _TOTALS if self.vocabulary.name == "vg150" else {}
        return {name: (self._found[name], number) for name, number in expected.items()}

    def _record(self, row: int, entry: dict, columns: dict[str, _Column]) -> Record:
        image_id = entry_id(entry)
        place = f"{self.source.name}, row {row} (image_id {image_id})"
        try:
            first_box, last_box, first_relation, last_relation = (int(columns[name](row, row)[0]) for name in _RANGES)
            split = self._split(int(columns["split"](row, row)[0]), has_relations=first_relation >= 0)
            image = self._images.file(entry)
            width, height = true_size(image, entry)
            labels = columns["labels"].range("boxes", first_box, last_box)
            boxes = columns["boxes_1024"].range("boxes", first_box, last_box)
            pairs = columns["relationships"].range("relations", first_relation, last_relation) - first_box
            predicates = columns["predicates"].range("relations", first_relation, last_relation)
            graph = SceneGraph(
                [
                    Object(_name(self.vocabulary.objects, "object", i, label), (x1, y1, x2, y2))
                    for i, (label, (x1, y1, x2, y2)) in enumerate(
                        zip(labels.ravel().tolist(), self._pixels(boxes, width, height), strict=True)
                    )
                ],
                [
                    Relation(subject, _name(self.vocabulary.predicates, "relation", i, predicate), target)
                    for i, ((subject, target), predicate) in enumerate(
                        zip(pairs.tolist(), predicates.ravel().tolist(), strict=True)
                    )
                ],
                width,
                height,
            )
            record = Record(image_id, image, graph, split, place)
        except GraphError as error:
            raise RecordError(place, str(error)) from None
        if (width, height) != (entry.get("width"), entry.get("height")):
            self.notes["images with another size than image_data.json says (the image is right)"] += 1
        return record

    def _pixels(self, boxes: np.ndarray, width: int, height: int) -> list[list[float]]:
        """(N, 4) rows of boxes_1024 -> xyxy in pixels of the image, clipped to it."""
        boxes = boxes.astype(np.float64)
        corner = np.trunc(boxes[:, :2] - boxes[:, 2:] / 2)  # the official loader rounds towards 0
        xyxy = np.hstack([corner, corner + boxes[:, 2:]]) * (max(width, height) / LONG_SIDE)
        clipped = np.clip(xyxy, 0, [width, height, width, height])
        outside = int((clipped != xyxy).any(axis=1).sum())
        if outside:
            self.notes["boxes clipped to the image"] += outside
        return clipped.tolist()

    def _split(self, number: int, has_relations: bool) -> str:
        if number not in _SPLITS:
            raise GraphError(f"split must be 0 (train), 1 (val) or 2 (test), found {number}")
        split = _SPLITS[number]
        found = self._found
        found["rows"] += 1
        found["training rows"] += split == "train"
        found["test rows"] += split == "test"
        found["test images with relations"] += split == "test" and has_relations
        if split == "train" and has_relations and found["first training images"] < self._validation:
            found["first training images"] += 1
            split = "val"
        found["training images with relations"] += split == "train" and has_relations
        found["validation images"] += split == "val"
        return split


class _Column:
    """A column of the h5 file, of which a window is in memory."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.length = len(dataset)
        self.start, self.rows = 0, dataset[:0]

    def __call__(self, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last`, inclusive."""
        if not (self.start <= first and last < self.start + len(self.rows)):
            try:
                self.start, self.rows = first, self.dataset[first : max(last + 1, first + _WINDOW)]
            except (OSError, RuntimeError) as error:  # h5py raises both for damaged data
                raise SourceError(
                    f"{self.dataset.file.filename} is damaged: {self.dataset.name} cannot be read from row {first:,} "
                    f"({error}); download or copy it again"
                ) from None
        return self.rows[first - self.start : last + 1 - self.start]

    def range(self, what: str, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last`, inclusive; none for -1, -1. Raises GraphError outside the column."""
        if first == last == -1:
            return self.rows[:0]
        if not 0 <= first <= last < self.length:
            raise GraphError(f"its {what} are rows {first} to {last}, but there are rows 0 to {self.length - 1} only")
        if last - first >= _WINDOW:
            raise GraphError(
                f"its {what} are rows {first} to {last}, {last - first + 1:,}; expected {_WINDOW:,} at most"
            )
        return self(first, last)


def _name(names: tuple[str, ...], kind: str, index: int, number: int) -> str:
    """The name of a 1-based class."""
    if not 1 <= number <= len(names):
        what = "label" if kind == "object" else "predicate"
        raise GraphError(f"{kind} {index}: the {what} must be from 1 to {len(names)}, found {number}")
    return names[number - 1]


def _find(root: Path, annotations: str | None) -> Path:
    if not root.is_dir():
        raise SgrlError(f"{root} is not a folder; give the folder that holds {' or '.join(FILES)}")
    present = sorted(path.name for path in root.glob("*.h5"))
    if annotations is None:
        known = [name for name in FILES if name in present]
        if known:
            return root / known[0]
        found = f"only {', '.join(sorted(path.name for path in root.iterdir())[:10]) or 'nothing'}"
        raise SgrlError(f"{root} holds no {' or '.join(FILES)}, {found}")
    if annotations not in present:
        raise SgrlError(f"{root / annotations} does not exist{suggest(annotations, present)} (--annotations NAME)")
    return root / annotations


def _class_lists(source: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Objects and predicates, in the order of their numbers."""
    names = dict.fromkeys((FILES.get(source.name, ""), *FILES.values()))
    path = next((source.parent / name for name in names if name and (source.parent / name).is_file()), None)
    if path is None:
        raise SgrlError(f"{source.parent} holds no class lists; expected {' or '.join(FILES.values())}")
    raw = read_json(path)
    try:
        lists = [raw["idx_to_label"], raw["idx_to_predicate"]]
        objects, predicates = (tuple(names[str(i + 1)] for i in range(len(names))) for names in lists)
        return objects, predicates
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SgrlError(
            f"{path} is not VG150's: expected idx_to_label and idx_to_predicate with the keys '1', '2', ...; "
            f"{type(error).__name__}: {error}"
        ) from None


def _open(path: Path):
    h5py = require("h5py", "data", "VG150's annotation")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        size = path.stat().st_size
        if "truncated" in str(error):
            raise SgrlError(
                f"{path} is truncated: it has {size:,} bytes, less than its header says. Download or copy it again"
            ) from None
        raise SgrlError(f"{path} ({size:,} bytes) is not a readable HDF5 file; download or copy it again") from None


def _check_storage(path: Path, name: str, file) -> None:
    """Raises SgrlError for a column that is elsewhere, holds no numbers, or declares more than the file can have."""
    import h5py

    column = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(column, h5py.Dataset) or column.is_virtual or column.external:
        raise SgrlError(f"{path}: {name} is not in this file; expected a data set of its own, not a link")
    if column.dtype.kind not in "iuf" or not column.shape:
        raise SgrlError(
            f"{path}: {name} has the type {column.dtype} and the shape {column.shape}; expected rows of numbers"
        )
    stored, chunk = column.id.get_storage_size(), math.prod(column.chunks or (1,)) * column.dtype.itemsize
    if column.nbytes > _COMPRESSION * min(stored, path.stat().st_size) or chunk > _LARGEST_CHUNK:
        raise SgrlError(
            f"{path}: {name} declares {column.nbytes:,} bytes in chunks of {chunk:,}, of which the file holds "
            f"{stored:,}; download or copy it again"
        )


def _check_shapes(path: Path, file) -> int:
    """The number of images. Raises SgrlError for a file that is not VG150's."""
    missing = [name for name in ("split", *_RANGES, *_COLUMNS) if name not in file]
    if missing:
        raise SgrlError(f"{path} has no {missing[0]!r}, only {', '.join(file) or 'nothing'}; expected VG150's columns")
    for name in ("split", *_RANGES, *_COLUMNS):
        _check_storage(path, name, file)
    rows = len(file["split"])
    shapes = {name: file[name].shape for name in (*_RANGES, *_COLUMNS)}
    for name in _RANGES:
        if shapes[name] != (rows,):
            raise SgrlError(f"{path}: {name} has the shape {shapes[name]}, split has {rows:,} rows; expected one each")
    for name, numbers in _COLUMNS.items():
        if shapes[name][1:] != (numbers,) and not (numbers == 1 and len(shapes[name]) == 1):
            raise SgrlError(f"{path}: {name} has the shape {shapes[name]}, expected (rows, {numbers})")
    for one, other in (("boxes_1024", "labels"), ("relationships", "predicates")):
        if shapes[one][0] != shapes[other][0]:
            raise SgrlError(
                f"{path}: {one} has {shapes[one][0]:,} rows, {other} {shapes[other][0]:,}; expected as many"
            )
    return rows
