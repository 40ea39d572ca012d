"""The toy world's scenes in the layouts that are rows and lists: raw Visual Genome, a COCO export, rows of the Hub.

Raw Visual Genome is free text, of which its reader keeps what VG150's lists know: there a circle is a wheel, a square
a box, a triangle a roof, a cross a sign, and an overlap says `over`, a place to the left `near`. Its split is not in
the files: the first 70 % of the images train.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_prep import toylayout
from data_prep.readers.vg_images import CORRUPT, FOLDERS
from data_prep.toyworld import OBJECTS, PREDICATES, SIZE, Scene, scene
from sgrl.errors import SgrlError
from sgrl.files import atomic_path

_WRITER_VERSION = 1  # raise it when the same arguments give other files
_VG_NAMES = {"circle": "Wheel", "square": "box", "triangle": "Roof.", "cross": "SIGN"}
_VG_PREDICATES = {"inside": "in", "overlapping": "OVER", "left-of": "near", "above": "above"}
_COCO = "_annotations.coco.json"
_ROWS = 500  # of a Parquet file's row group


def _begin(output: str | Path, layout: str, last: str, folders: tuple[str, ...], train: int, test: int, seed: int):
    """The folder, made empty; None where it already holds the scenes of the same arguments."""
    if train < 0 or test < 0 or train + test == 0:
        raise SgrlError(f"cannot draw {train} training and {test} test scenes; give numbers from 0 up")
    output = Path(output)
    arguments = {"layout": layout, "train": train, "test": test, "seed": seed, "version": _WRITER_VERSION}
    return output if toylayout.begin(output, last, folders, arguments) else None


def _scenes(split: str, number: int, seed: int, counts: Counter, progress: bool) -> Iterator[Scene]:
    from tqdm import tqdm

    for index in tqdm(range(number), desc=f"drawing scenes of {split}", unit=" scenes", disable=not progress):
        drawn = scene(seed, index, split)
        counts[split] += 1
        counts["objects"] += len(drawn.boxes)
        counts["without relations"] += not drawn.relations
        counts.update(predicate for _, predicate, _ in drawn.relations)
        yield drawn


def _jpeg(drawn: Scene) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    # No chroma subsampling: it would smear the colours of the smallest shapes over their edges.
    Image.fromarray(drawn.image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def write_vg(output: str | Path, train: int, test: int, seed: int = 0, progress: bool = False) -> dict | None:
    """image_data.json, objects.json, relationships.json and VG_100K/. Arguments and result as of `toyworld.write`."""
    output = _begin(output, "vg", "relationships.json", FOLDERS[:1], train, test, seed)
    if output is None:
        return None
    counts: Counter[str] = Counter()
    images, objects, relationships = [], [], []
    image_id = number = 0
    for split, scenes in (("train", train), ("test", test)):
        for drawn in _scenes(split, scenes, seed, counts, progress):
            image_id += 1
            while image_id in CORRUPT:
                image_id += 1
            (output / FOLDERS[0] / f"{image_id}.jpg").write_bytes(_jpeg(drawn))
            url = f"https://cs.stanford.edu/people/rak248/{FOLDERS[0]}/{image_id}.jpg"
            images.append({"image_id": image_id, "url": url, "width": SIZE, "height": SIZE})
            entries = []
            for (x1, y1, x2, y2), label in zip(drawn.boxes, drawn.labels, strict=True):
                number += 1
                place = {"x": x1 + 1, "y": y1 + 1, "w": x2 - x1, "h": y2 - y1}  # the first pixel is 1
                entries.append({"object_id": number, "names": [_VG_NAMES[label]], "synsets": [], **place})
            objects.append({"image_id": image_id, "objects": entries})
            found = [
                {"predicate": _VG_PREDICATES[predicate], "subject": entries[subject], "object": entries[target]}
                for subject, predicate, target in drawn.relations
            ]
            relationships.append({"image_id": image_id, "relationships": found})
    for name, content in (("image_data", images), ("objects", objects), ("relationships", relationships)):
        with atomic_path(output / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content))
    return dict(counts)


def write_coco(output: str | Path, train: int, test: int, seed: int = 0, progress: bool = False) -> dict | None:
    """train/ and test/ with images beside _annotations.coco.json. Arguments and result as of `toyworld.write`."""
    output = _begin(output, "coco", f"test/{_COCO}", ("train", "test"), train, test, seed)
    if output is None:
        return None
    counts: Counter[str] = Counter()
    for split, scenes in (("train", train), ("test", test)):
        content = {
            "images": [],
            "annotations": [],
            "rel_annotations": [],
            "categories": [{"id": i, "name": name} for i, name in enumerate(OBJECTS)],
            "rel_categories": [{"id": i, "name": name} for i, name in enumerate(PREDICATES)],
        }
        for image_id, drawn in enumerate(_scenes(split, scenes, seed, counts, progress), 1):
            name, first = f"{image_id:06d}.jpg", len(content["annotations"])
            (output / split / name).write_bytes(_jpeg(drawn))
            content["images"].append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
            for (x1, y1, x2, y2), label in zip(drawn.boxes, drawn.labels, strict=True):
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                entry = {"id": len(content["annotations"]), "image_id": image_id, "category_id": OBJECTS.index(label)}
                content["annotations"].append(entry | box)
            for subject, predicate, target in drawn.relations:
                ends = {"subject_id": first + subject, "object_id": first + target}
                entry = {"id": len(content["rel_annotations"]), "image_id": image_id, **ends}
                content["rel_annotations"].append(entry | {"predicate_id": PREDICATES.index(predicate)})
        if scenes:
            with atomic_path(output / split / _COCO) as temporary:
                temporary.write_text(json.dumps(content))
    return dict(counts)


def write_hub(output: str | Path, train: int, test: int, seed: int = 0, progress: bool = False) -> dict | None:
    """train/ and test/ with a Parquet file each. Arguments and result as of `toyworld.write`."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise SgrlError("rows of the Hub need pyarrow: pip install 'sgrl[data]'") from None

    name = "train-00000-of-00001.parquet"  # of the test rows too, as the Hub's converter calls the files
    output = _begin(output, "hub", f"test/{name}", ("train", "test"), train, test, seed)
    if output is None:
        return None
    counts: Counter[str] = Counter()
    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    texts = dict.fromkeys(("image_id", "objects", "relationships"), pyarrow.string())
    schema = pyarrow.schema({"image": image, **texts})
    for split, scenes in (("train", train), ("test", test)):
        with atomic_path(output / split / name) as temporary, parquet.ParquetWriter(temporary, schema) as file:
            rows = []
            for index, drawn in enumerate(_scenes(split, scenes, seed, counts, progress)):
                rows.append(_hub_row(f"{split}-{index}", drawn))
                if len(rows) == _ROWS:
                    file.write_table(pyarrow.Table.from_pylist(rows, schema))
                    rows = []
            file.write_table(pyarrow.Table.from_pylist(rows, schema))
    return dict(counts)


def _hub_row(image_id: str, drawn: Scene) -> dict:
    ids, numbers = [], Counter()
    for label in drawn.labels:
        numbers[label] += 1
        ids.append(f"{label}.{numbers[label]}")
    objects = [{"id": name, "bbox": box} for name, box in zip(ids, drawn.boxes, strict=True)]
    relationships = [
        {"subject": ids[subject], "predicate": predicate, "object": ids[target]}
        for subject, predicate, target in drawn.relations
    ]
    return {
        "image": {"bytes": _jpeg(drawn), "path": None},
        "image_id": image_id,
        "objects": json.dumps(objects),
        "relationships": json.dumps(relationships),
    }
