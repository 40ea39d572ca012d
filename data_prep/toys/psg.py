"""The toy world's scenes in the layout of PSG: psg.json, COCO's images and panoptic masks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np

from data_prep.toys.scene import OBJECTS, PREDICATES, SIZE, Scene, jpeg, scene
from data_prep.toys.writing import Drawing, count_scene
from data_prep.workers import in_order
from sgrl.files import atomic_path
from sgrl.progress import Progress

_FOLDERS = {"train": "train2017", "test": "val2017"}
_FIRST_ID = {"train": 1, "test": 10_000_001}  # image ids of the splits must not meet


def write(
    output: str | Path, train: int, test: int, seed: int = 0, progress: bool = False, workers: int = 1
) -> dict | None:
    """Write `train` + `test` scenes to `output`/psg/psg.json and `output`/coco in PSG's official layout.

    psg.json comes last and in one piece, so a folder that has it is complete. Returns counts of what was drawn, or
    None where the folder already holds the scenes of the same arguments. Raises SgrlError for impossible arguments
    and for a folder whose psg.json is not a toy world.

    workers: processes that draw, see `data_prep.workers.in_order`.
    """
    output = Path(output)
    drawing = Drawing(None, train, test, seed)
    if not drawing.begin(output, "psg/psg.json", ("coco",)):
        return None
    coco = output / "coco"
    for folder in _FOLDERS.values():
        (coco / folder).mkdir()
        (coco / f"panoptic_{folder}").mkdir()
    (output / "psg").mkdir(exist_ok=True)
    counts: Counter[str] = Counter()
    with atomic_path(output / "psg" / "psg.json") as temporary, temporary.open("w") as file:
        file.write('{"data": [')
        todo = ((number, (coco, seed, *place)) for number, place in enumerate(drawing.todo()))
        shown = Progress("drawing scenes", train + test, "scene", where=output, show=progress)
        for number, (record, found) in shown.over(in_order(_draw, todo, workers)):
            file.write((",\n" if number else "\n") + record)
            counts.update(found)
        classes = {
            "thing_classes": OBJECTS,
            "stuff_classes": [],
            "predicate_classes": PREDICATES,
            "test_image_ids": [str(_FIRST_ID["test"] + i) for i in range(test)],
        }
        file.write("\n], " + json.dumps(classes)[1:] + "\n")
    return dict(counts)


def _draw(job: tuple[Path, int, str, int]) -> tuple[str, Counter]:
    """Draw a scene (folder, seed, split, index) and save its images: its record as JSON, and counts."""
    coco, seed, split, index = job
    drawn = scene(seed, index, split)
    record = _record(drawn, _FIRST_ID[split] + index, _FOLDERS[split])
    _save_images(drawn, coco, record)
    counts = Counter({split: 1})
    count_scene(counts, drawn)
    return json.dumps(record), counts


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

    (coco / record["file_name"]).write_bytes(jpeg(drawn.image))
    rgb = drawn.segments[..., None] >> np.array([0, 8, 16]) & 255
    Image.fromarray(rgb.astype(np.uint8)).save(coco / record["pan_seg_file_name"], compress_level=1)
