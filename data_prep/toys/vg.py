"""The toy world's scenes in the layout of raw Visual Genome: image_data.json, objects.json and relationships.json.

They are free text, of which the reader keeps what VG150's lists know: there a circle is a wheel, a square a box, a
triangle a roof, a cross a sign, and an overlap says `over`, a place to the left `near`. The split is not in the files:
the first 70 % of the images train.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from data_prep.readers.vg_images import CORRUPT, FOLDERS
from data_prep.toys.scene import SIZE, jpeg
from data_prep.toys.writing import Drawing
from sgrl.files import atomic_path

_NAMES = {"circle": "Wheel", "square": "box", "triangle": "Roof.", "cross": "SIGN"}
_PREDICATES = {"inside": "in", "overlapping": "OVER", "left-of": "near", "above": "above"}


def write(output: str | Path, train: int, test: int, seed: int = 0, progress: bool = False) -> dict | None:
    """image_data.json, objects.json, relationships.json and VG_100K/. Arguments and result as of psg.py."""
    output = Path(output)
    drawing = Drawing("vg", train, test, seed)
    if not drawing.begin(output, "relationships.json", FOLDERS[:1]):
        return None
    counts: Counter[str] = Counter()
    images, objects, relationships = [], [], []
    image_id = number = 0
    for _, _, drawn in drawing.scenes(counts, progress):
        image_id += 1
        while image_id in CORRUPT:
            image_id += 1
        (output / FOLDERS[0] / f"{image_id}.jpg").write_bytes(jpeg(drawn.image))
        url = f"https://cs.stanford.edu/people/rak248/{FOLDERS[0]}/{image_id}.jpg"
        images.append({"image_id": image_id, "url": url, "width": SIZE, "height": SIZE})
        entries = []
        for (x1, y1, x2, y2), label in zip(drawn.boxes, drawn.labels, strict=True):
            number += 1
            place = {"x": x1 + 1, "y": y1 + 1, "w": x2 - x1, "h": y2 - y1}  # the first pixel is 1
            entries.append({"object_id": number, "names": [_NAMES[label]], "synsets": [], **place})
        objects.append({"image_id": image_id, "objects": entries})
        found = [
            {"predicate": _PREDICATES[predicate], "subject": entries[subject], "object": entries[target]}
            for subject, predicate, target in drawn.relations
        ]
        relationships.append({"image_id": image_id, "relationships": found})
    for name, content in (("image_data", images), ("objects", objects), ("relationships", relationships)):
        with atomic_path(output / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content))
    return dict(counts)
