"""What it costs to read VG150, raw Visual Genome, COCO exports and PSG4D, in CPU time of one core and peak memory.

    python benchmarks/image_readers.py

VG150: an h5 file with as many rows, boxes and relations as the official one (108,073 rows), random content. The others
are shorter; their cost per image does not depend on the length. PSG4D-GTA: masks of 1280 x 800 pixels with 23 objects.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from video_readers import in_child, measure

from sgrl.vocabulary import get_vocabulary

_URL = "https://cs.stanford.edu/people/rak248/VG_100K/{}.jpg"


def write_vg150(root: Path, images: int) -> None:
    """About ten boxes and six relations per image, as in the official file."""
    import h5py

    rng, vocabulary = np.random.default_rng(0), get_vocabulary("vg150")
    boxes, relations = rng.integers(4, 18, images), rng.integers(0, 12, images)
    ends = {"box": np.cumsum(boxes), "rel": np.cumsum(relations)}
    first_box = ends["box"] - boxes
    owner = np.repeat(np.arange(images), relations)
    pairs = first_box[owner, None] + rng.integers(0, boxes[owner, None], (len(owner), 2))
    with h5py.File(make(root) / "VG-SGG.h5", "w") as file:
        file["boxes_1024"] = rng.integers(50, 500, (boxes.sum(), 4)).astype("int32")
        file["labels"] = rng.integers(1, 151, (boxes.sum(), 1))
        file["relationships"] = pairs.astype("int32")
        file["predicates"] = rng.integers(1, 51, (len(pairs), 1))
        for name, counts in (("box", boxes), ("rel", relations)):
            file[f"img_to_first_{name}"] = np.where(counts, ends[name] - counts, -1).astype("int32")
            file[f"img_to_last_{name}"] = np.where(counts, ends[name] - 1, -1).astype("int32")
        file["split"] = np.where(np.arange(images) < 0.7 * images, 0, 2).astype("int32")
    lists = {"idx_to_label": vocabulary.objects, "idx_to_predicate": vocabulary.predicates}
    dicts = {key: {str(i + 1): name for i, name in enumerate(names)} for key, names in lists.items()}
    (root / "VG-SGG-dicts.json").write_text(json.dumps(dicts))
    write_image_data(root, images)


def write_image_data(root: Path, images: int) -> None:
    """Ids from 5,000 on: none of them is one of the corrupt images."""
    entries = ({"image_id": i, "url": _URL.format(i), "width": 800, "height": 600} for i in range(5000, 5000 + images))
    (root / "image_data.json").write_text(json.dumps(list(entries)))
    (root / "VG_100K").mkdir()


def write_vg(root: Path, images: int) -> None:
    """35 objects and 21 relations per image, the means of the official files."""

    def box(number: int) -> dict:
        shared = {"synsets": ["tree.n.01"], "merged_object_ids": [], "names": ["trees"]}
        return {"object_id": number, "x": 10, "y": 20, "w": 30, "h": 40, **shared}

    write_image_data(make(root), images)
    with (root / "objects.json").open("w") as objects, (root / "relationships.json").open("w") as relations:
        for i in range(5000, 5000 + images):
            entry = {"image_id": i, "objects": [box(100 * i + k) for k in range(35)]}
            objects.write(("[" if i == 5000 else ", ") + json.dumps(entry))
            ends = [{"subject": box(100 * i + k), "object": box(100 * i + k + 1)} for k in range(21)]
            entry = {"image_id": i, "relationships": [{"predicate": "ON", "synsets": [], **pair} for pair in ends]}
            relations.write(("[" if i == 5000 else ", ") + json.dumps(entry))
        objects.write("]")
        relations.write("]")


def write_coco(root: Path, images: int) -> None:
    """Ten objects and six relations per image."""
    vocabulary = get_vocabulary("psg")
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(images)],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": k, "bbox": [1.5, 2.5, 100.0, 50.0], "area": 5000.0}
            for i in range(images)
            for k in range(10)
        ],
        "rel_annotations": [
            {"id": 6 * i + k, "image_id": i, "subject_id": 10 * i + k, "object_id": 10 * i + k + 1, "predicate_id": k}
            for i in range(images)
            for k in range(6)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(vocabulary.objects)],
        "rel_categories": [{"id": i, "name": name} for i, name in enumerate(vocabulary.predicates)],
    }
    (make(root / "train") / "_annotations.coco.json").write_text(json.dumps(content))


def write_psg4d(root: Path, frames: int) -> None:
    """One video."""
    rng, ids = np.random.default_rng(0), [*range(1, 21), 1001, 1002, 1003]
    for kind in ("masks", "images"):
        make(root / "psg4d_gta" / kind / "video")
    mask = np.zeros((800, 1280), np.int32)
    for number in ids:
        x, y = rng.integers(0, 1000), rng.integers(0, 600)
        mask[y : y + 150, x : x + 200] = number
    for frame in range(frames):
        np.save(root / "psg4d_gta" / "masks" / "video" / f"{frame:06d}.npy", mask)
        Image.new("RGB", (1280, 800)).save(root / "psg4d_gta" / "images" / "video" / f"{frame:06d}.bmp")
    objects = [{"object_id": i, "category": f"class {i}"} for i in ids]
    relations = [[i, f"predicate {i}", i + 1, [0, frames - 1]] for i in range(1, 16)]
    content = {"data": [{"video_id": "video", "object": objects, "relations": relations}]}
    (root / "sailvos3d.json").write_text(json.dumps(content))


def make(folder: Path) -> Path:
    """The folder, made."""
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    """The command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=108073, help="of VG150 (default: %(default)s, all)")
    parser.add_argument("--others", type=int, default=20000, help="of the other image sets (default: %(default)s)")
    parser.add_argument("--masks", type=int, default=60, help="of PSG4D-GTA (default: %(default)s)")
    args = parser.parse_args()
    todo = (
        ("vg150", write_vg150, args.images),
        ("vg", write_vg, args.others),
        ("coco", write_coco, args.others),
        ("psg4d_gta", write_psg4d, args.masks),
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, write, number in todo:
            in_child(write, Path(folder) / name, number)
            in_child(measure, name, Path(folder) / name)


if __name__ == "__main__":
    main()
