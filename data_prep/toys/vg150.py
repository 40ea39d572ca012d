"""The toy world's scenes in the layout of VG150: VG-SGG.h5, its dicts, image_data.json and the two image folders."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np

from data_prep.readers.vg_images import CORRUPT, FOLDERS
from data_prep.toys.scene import OBJECTS, PREDICATES, SIZE, Scene, jpeg
from data_prep.toys.writing import Drawing
from sgrl.extras import require
from sgrl.files import atomic_path

_URL = "https://cs.stanford.edu/people/rak248/{}/{}.jpg"


def encode_box(box: tuple[int, int, int, int], width: int, height: int, long_side: int) -> list[int]:
    """xyxy pixels -> the centre, width and height that the h5 file holds (Xu et al.: all rounded outwards).

    The result lies in the square of `long_side`, which for an oblong image is more than the image.
    """
    factor = long_side / max(width, height)
    x, y = (min(max(math.floor(factor * value), 0), long_side - 2) for value in box[:2])
    w = min(math.ceil(factor * (box[2] - box[0])), long_side - x)
    h = min(math.ceil(factor * (box[3] - box[1])), long_side - y)
    return [x + w // 2, y + h // 2, w, h]


def write(output: str | Path, train: int, test: int, seed: int = 0, progress: bool = False) -> dict | None:
    """Write `train` + `test` scenes to `output`. The h5 file comes last, so a folder that has it is complete.

    image_data.json also lists the images that VG150 leaves out, as the official one does. Returns counts of what was
    drawn, or None where the folder already holds the scenes of the same arguments. Raises SgrlError for impossible
    arguments and for a folder whose h5 file is not a toy world.
    """
    output = Path(output)
    drawing = Drawing("vg150", train, test, seed)
    if not drawing.begin(output, "VG-SGG.h5", FOLDERS):
        return None
    rows, entries = _Rows(), []
    counts: Counter[str] = Counter()
    image_id = 0
    for split, _, drawn in drawing.scenes(counts, progress):
        image_id += 1
        while image_id in CORRUPT:
            entries.append(_entry(image_id, FOLDERS[0]))
            image_id += 1
        folder = FOLDERS[split == "test"]
        (output / folder / f"{image_id}.jpg").write_bytes(jpeg(drawn.image))
        entries.append(_entry(image_id, folder))
        rows.add(drawn, split)
    labels, predicates = (
        {name: i + 1 for i, name in enumerate(names)} for names in (OBJECTS, PREDICATES)
    )  # 0 is the background
    for name, content in (
        ("image_data.json", entries),
        (
            "VG-SGG-dicts.json",
            {
                "label_to_idx": labels,
                "idx_to_label": {str(i): name for name, i in labels.items()},
                "predicate_to_idx": predicates,
                "idx_to_predicate": {str(i): name for name, i in predicates.items()},
                "object_count": {name: rows.labels.count([i]) for name, i in labels.items()},
                "predicate_count": {name: counts[name] for name in PREDICATES},
            },
        ),
    ):
        with atomic_path(output / name) as temporary:
            temporary.write_text(json.dumps(content))
    with atomic_path(output / "VG-SGG.h5") as temporary:
        rows.save(temporary)
    return dict(counts)


class _Rows:
    """The columns of the h5 file."""

    def __init__(self):
        self.boxes: dict[int, list] = {1024: [], 512: []}
        self.labels: list[list[int]] = []
        self.relationships: list[list[int]] = []
        self.predicates: list[list[int]] = []
        self.ranges: list[tuple[int, int, int, int]] = []
        self.splits: list[int] = []

    def add(self, drawn: Scene, split: str) -> None:
        box, relation = len(self.labels), len(self.predicates)
        for long_side, column in self.boxes.items():
            column += [encode_box(one, SIZE, SIZE, long_side) for one in drawn.boxes]
        self.labels += [[OBJECTS.index(label) + 1] for label in drawn.labels]
        self.relationships += [[box + subject, box + target] for subject, _, target in drawn.relations]
        self.predicates += [[PREDICATES.index(predicate) + 1] for _, predicate, _ in drawn.relations]
        none = not drawn.relations
        last = -1 if none else len(self.predicates) - 1
        self.ranges.append((box, len(self.labels) - 1, -1 if none else relation, last))
        self.splits.append(0 if split == "train" else 2)

    def save(self, path: Path) -> None:
        h5py = require("h5py", "data", "VG150's layout")

        def column(values, width, kind):
            return np.array(values, kind).reshape(-1, width)

        with h5py.File(path, "w") as file:
            for long_side, boxes in self.boxes.items():
                file[f"boxes_{long_side}"] = column(boxes, 4, "int32")
            file["labels"] = column(self.labels, 1, "int64")
            file["active_object_mask"] = np.ones((len(self.labels), 1), bool)
            file["relationships"] = column(self.relationships, 2, "int32")
            file["predicates"] = column(self.predicates, 1, "int64")
            names = ("first_box", "last_box", "first_rel", "last_rel")
            for name, values in zip(names, np.array(self.ranges, "int32").T, strict=True):
                file[f"img_to_{name}"] = values
            file["split"] = np.array(self.splits, "int32")


def _entry(image_id: int, folder: str) -> dict:
    url = _URL.format(folder, image_id)
    return {"width": SIZE, "url": url, "height": SIZE, "image_id": image_id, "coco_id": None, "flickr_id": None}
