"""The toy world's scenes as a COCO export with relations: a folder a split, images beside their annotation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from data_prep.toys.scene import OBJECTS, PREDICATES, SIZE, SPLITS, jpeg
from data_prep.toys.writing import Drawing
from sgrl.files import atomic_path

_ANNOTATIONS = "_annotations.coco.json"


def write(output: str | Path, train: int, test: int, seed: int = 0, progress: bool = False) -> dict | None:
    """train/ and test/ with images beside _annotations.coco.json. Arguments and result as of psg.py."""
    output = Path(output)
    drawing = Drawing("coco", train, test, seed)
    if not drawing.begin(output, f"test/{_ANNOTATIONS}", SPLITS):
        return None
    counts: Counter[str] = Counter()
    for split in SPLITS:
        content: dict[str, list[dict]] = {
            "images": [],
            "annotations": [],
            "rel_annotations": [],
            "categories": [{"id": i, "name": name} for i, name in enumerate(OBJECTS)],
            "rel_categories": [{"id": i, "name": name} for i, name in enumerate(PREDICATES)],
        }
        for image_id, (_, _, drawn) in enumerate(drawing.scenes(counts, progress, (split,)), 1):
            name, first = f"{image_id:06d}.jpg", len(content["annotations"])
            (output / split / name).write_bytes(jpeg(drawn.image))
            content["images"].append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
            for (x1, y1, x2, y2), label in zip(drawn.boxes, drawn.labels, strict=True):
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                entry = {"id": len(content["annotations"]), "image_id": image_id, "category_id": OBJECTS.index(label)}
                content["annotations"].append(entry | box)
            for subject, predicate, target in drawn.relations:
                ends = {"subject_id": first + subject, "object_id": first + target}
                entry = {"id": len(content["rel_annotations"]), "image_id": image_id, **ends}
                content["rel_annotations"].append(entry | {"predicate_id": PREDICATES.index(predicate)})
        if content["images"]:
            with atomic_path(output / split / _ANNOTATIONS) as temporary:
                temporary.write_text(json.dumps(content))
    return dict(counts)
